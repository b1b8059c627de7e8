"""One typed value that a user may set: its type, default, limits, JSON Schema, and the check of what was given.

A small mechanism of our own: recipes need five types, a handful of limits and errors that name all fields at once, and
the SDK depends on no validation library (docs/adr/0005).
"""

import math
import operator
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, Final, Literal, Self, TypeVar, Union, cast, get_args, get_origin

from tuneforge.errors import FieldViolation

T = TypeVar("T")

_KINDS: Final[Mapping[type, str]] = {bool: "boolean", int: "integer", float: "number", str: "string"}
_WORDS: Final = {"boolean": "true or false", "integer": "an integer", "number": "a number", "string": "a text"}
_LARGEST_INTEGER = 2**63


class RecipeError(TypeError, ValueError):
    """A recipe, or what was given to one, is wrong; `problems` has every field."""

    def __init__(self, what: str, problems: Iterable[FieldViolation]) -> None:
        self.what = what
        self.problems = tuple(problems)
        super().__init__("\n".join([what, *(f"  {each.field}: {each.description}" for each in self.problems)]))


@dataclass(frozen=True, slots=True)
class Declared:
    """A default with its limits, as `Parameter` makes it."""

    default: Any
    description: str = ""
    ge: float | None = None
    """Smallest value."""
    gt: float | None = None
    """What it must be above."""
    le: float | None = None
    """Largest value."""
    lt: float | None = None
    """What it must be below."""
    min_length: int | None = None
    """Fewest characters or entries."""
    max_length: int | None = None
    """Most characters or entries."""
    pattern: str | None = None
    """Regular expression that a whole text must match."""


def Parameter(
    default: T,
    *,
    description: str = "",
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    pattern: str | None = None,
) -> T:
    """Declares what a value may be, beside its type.

        epochs: int = Parameter(10, ge=1, description="Passes over the data.")

    Args:
        default: The value where a user gives none; it must be within the limits.
        description: What it does, for users.
        ge: Smallest value.
        gt: What it must be above.
        le: Largest value.
        lt: What it must be below.
        min_length: Fewest characters or entries.
        max_length: Most characters or entries.
        pattern: Regular expression that a whole text must match.
    """
    declared = Declared(default, description, ge, gt, le, lt, min_length, max_length, pattern)
    return cast("T", declared)  # for the type checker an attribute has its type; `__init_subclass__` reads what it is


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterSpec:
    """An argument of a recipe, without the class it was declared in."""

    name: str
    kind: str
    """`boolean`, `integer`, `number`, `string` or `array`."""
    default: Any
    item_kind: str = ""
    """Of the entries of an array."""
    is_nullable: bool = False
    choices: tuple[Any, ...] = ()
    """The only values; empty: any."""
    description: str = ""
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None

    @classmethod
    def of(cls, name: str, annotation: Any, default: Any) -> Self:
        """Returns the specification of a class attribute.

        Args:
            name: Name of the attribute.
            annotation: Its type.
            default: Its value, with limits when `Parameter` made it.

        Raises:
            ValueError: The type cannot be an argument, the limits do not fit it, or the default breaks them.
        """
        given = default if isinstance(default, Declared) else Declared(default)
        kind, item_kind, is_nullable, choices = _read_type(annotation)
        limits = {each.name: getattr(given, each.name) for each in fields(Declared) if each.name != "default"}
        spec = cls(
            name=name,
            kind=kind,
            item_kind=item_kind,
            is_nullable=is_nullable,
            choices=choices,
            default=given.default.value if isinstance(given.default, Enum) else given.default,
            **limits,
        )
        spec.check_limits()
        value, problem = spec.check(spec.default)
        if problem:
            raise ValueError(f"has the default {spec.default!r}, which {problem}")
        return cls(**{each.name: getattr(spec, each.name) for each in fields(cls)} | {"default": value})

    def check_limits(self) -> None:
        """Refuses limits that make no sense for the type.

        Raises:
            ValueError: They do not.
        """
        is_ranged = any(limit is not None for limit in (self.ge, self.gt, self.le, self.lt))
        if is_ranged and self.kind not in {"integer", "number"}:
            raise ValueError(f"has ge, gt, le or lt, which are for numbers, but is {self.words}")
        if self.pattern is not None:
            if self.kind != "string":
                raise ValueError(f"has a pattern, which is for texts, but is {self.words}")
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise ValueError(f"has the pattern {self.pattern!r}, which is no regular expression: {error}") from None

    @property
    def words(self) -> str:
        """What it is, for people."""
        if self.kind == "array":
            return f"a list, each entry {_WORDS[self.item_kind]}"
        return _WORDS[self.kind]

    def check(self, value: Any) -> tuple[Any, str]:
        """Returns a value in the parameter's type and what is wrong with it; an empty text: nothing is."""
        if value is None and self.is_nullable:
            return None, ""
        if self.kind == "array":
            return self._check_array(value)
        found, is_right = _as_kind(self.kind, value)
        if not is_right:
            return value, f"is not {_WORDS[self.kind]}: {_shown(value)}"
        if self.choices and found not in self.choices:
            return value, f"is {_shown(value)}; give one of {', '.join(map(str, self.choices))}"
        return found, self._limit_problem(found)

    def _check_array(self, value: Any) -> tuple[Any, str]:
        if not isinstance(value, list | tuple):
            return value, f"is not a list: {_shown(value)}"
        entries = [_as_kind(self.item_kind, each) for each in value]
        for number, (each, is_right) in enumerate(entries):
            if not is_right:
                return value, f"has at place {number} what is not {_WORDS[self.item_kind]}: {_shown(value[number])}"
            if self.choices and each not in self.choices:
                return value, f"has {_shown(each)}; give some of {', '.join(map(str, self.choices))}"
        return [each for each, _ in entries], self._length_problem(len(entries), "entries")

    def _limit_problem(self, value: Any) -> str:
        if isinstance(value, str):
            if self.pattern is not None and not re.fullmatch(self.pattern, value):
                return f"is {_shown(value)}, which does not match {self.pattern}"
            return self._length_problem(len(value), "characters")
        for limit, is_kept, word in (
            (self.ge, operator.ge, "at least"),
            (self.gt, operator.gt, "more than"),
            (self.le, operator.le, "at most"),
            (self.lt, operator.lt, "less than"),
        ):
            if limit is not None and not is_kept(value, limit):
                return f"is {value}; give {word} {limit:g}"
        return ""

    def _length_problem(self, length: int, unit: str) -> str:
        if self.min_length is not None and length < self.min_length:
            return f"has {length} {unit}; give at least {self.min_length}"
        if self.max_length is not None and length > self.max_length:
            return f"has {length} {unit}; give at most {self.max_length}"
        return ""

    def schema(self) -> dict[str, Any]:
        """Returns the JSON Schema of the argument."""
        schema: dict[str, Any] = {"type": [self.kind, "null"] if self.is_nullable else self.kind}
        if self.kind == "array":
            schema["items"] = {"type": self.item_kind} | ({"enum": list(self.choices)} if self.choices else {})
        elif self.choices:
            schema["enum"] = [*self.choices, *([None] if self.is_nullable else [])]
        suffix = "Items" if self.kind == "array" else "Length"
        limits = {
            "minimum": self.ge,
            "exclusiveMinimum": self.gt,
            "maximum": self.le,
            "exclusiveMaximum": self.lt,
            f"min{suffix}": self.min_length,
            f"max{suffix}": self.max_length,
            "pattern": f"^(?:{self.pattern})$" if self.pattern is not None else None,
            "description": self.description or None,
        }
        return schema | {name: limit for name, limit in limits.items() if limit is not None} | {"default": self.default}


def _as_kind(kind: str, value: Any) -> tuple[Any, bool]:
    """Returns a value in a kind, and whether it is one; a whole float is an integer, as JSON has it."""
    if isinstance(value, Enum):
        value = value.value
    if kind == "boolean":
        return value, isinstance(value, bool)
    if kind == "string":
        return value, isinstance(value, str) and "\0" not in value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value, False
    if isinstance(value, float) and not math.isfinite(value):
        return value, False
    if kind == "integer":
        return (int(value), True) if value == int(value) and abs(value) < _LARGEST_INTEGER else (value, False)
    return (float(value), True) if abs(value) < 1e308 else (value, False)


def _read_type(annotation: Any) -> tuple[str, str, bool, tuple[Any, ...]]:
    """Returns (kind, kind of entries, whether it may be None, choices) of an annotation.

    Raises:
        ValueError: It is none that an argument can have.
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in {Union, types.UnionType}:
        rest = [each for each in inner if each is not types.NoneType]
        if len(rest) == 1 and len(rest) < len(inner):
            kind, item_kind, _, choices = _read_type(rest[0])
            return kind, item_kind, True, choices
    if origin is list and len(inner) == 1:
        kind, _, is_nullable, choices = _read_type(inner[0])
        if kind != "array" and not is_nullable:
            return "array", kind, False, choices
    if origin is Literal and len({type(each) for each in inner}) == 1 and type(inner[0]) in _KINDS:
        return _KINDS[type(inner[0])], "", False, inner
    if isinstance(annotation, type):
        if issubclass(annotation, Enum):
            values = tuple(each.value for each in annotation)
            return _read_type(Literal[values])
        if annotation in _KINDS:
            return _KINDS[annotation], "", False, ()
    shown = annotation.__name__ if isinstance(annotation, type) else annotation
    raise ValueError(
        f"has the type {shown}; give bool, int, float, str, a Literal, an Enum, a list or X | None of them"
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
