"""The arguments of a recipe as a class: annotated attributes with defaults."""

import difflib
import inspect
from collections.abc import Mapping, Sequence
from types import FunctionType, MappingProxyType
from typing import Any, ClassVar, get_type_hints

from tuneforge.errors import FieldViolation
from tuneforge.recipes.parameters import Declared, ParameterSpec, RecipeError

PREFIX = "training_arguments"
"""Where the arguments stand in a recipe, for messages."""


class TrainingArguments:
    """Base of the arguments of a recipe: each attribute has a type and a default, and perhaps limits.

        class Arguments(TrainingArguments):
            batch_size: int = 32
            learning_rate: float = Parameter(0.001, gt=0, description="Of the optimiser.")

    An object has the values: `Arguments(batch_size=8)`. All that is wrong is told at once.
    """

    parameters: ClassVar[Sequence[ParameterSpec]] = ()
    """What the class declares, in order; a subclass adds to and replaces what it inherits."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        inherited = {spec.name: spec for base in reversed(cls.__mro__[1:]) for spec in getattr(base, "parameters", ())}
        own, problems = _declared(cls)
        if problems:
            raise RecipeError(f"the arguments {cls.__name__} are wrong", problems)
        cls.parameters = tuple((inherited | own).values())

    def __init__(self, **given: Any) -> None:
        values, problems = merge(self.parameters, given)
        if problems:
            raise RecipeError(f"the arguments given to {type(self).__name__} are wrong", problems)
        self.__dict__.update(values)

    @property
    def values(self) -> Mapping[str, Any]:
        """All arguments by name."""
        return MappingProxyType({spec.name: self.__dict__[spec.name] for spec in self.parameters})

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, TrainingArguments) and other.values == self.values

    def __hash__(self) -> int:
        return hash((type(self), repr(dict(self.values))))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.values.items())})"


def merge(parameters: Sequence[ParameterSpec], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[FieldViolation]]:
    """Puts given arguments over the defaults.

    Args:
        parameters: What may be given.
        given: Name -> value.

    Returns:
        (all arguments in order, all problems); an unknown name is told with the one that is nearest to it.
    """
    known = {spec.name: spec for spec in parameters}
    values: dict[str, Any] = {spec.name: spec.default for spec in parameters}
    problems = []
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known) or 'none'}"
            problems.append(FieldViolation(f"{PREFIX}.{str(name)[:80]}", f"is no argument of this recipe{hint}"))
            continue
        values[name], problem = known[name].check(value)
        if problem:
            problems.append(FieldViolation(f"{PREFIX}.{name}", problem))
    return values, problems


def _declared(cls: type[TrainingArguments]) -> tuple[dict[str, ParameterSpec], list[FieldViolation]]:
    """Returns what a class itself declares, and what is wrong with it."""
    annotated = inspect.get_annotations(cls)
    try:
        hints = get_type_hints(cls)
    except (NameError, TypeError, SyntaxError) as error:
        return {}, [FieldViolation(cls.__name__, f"has a type that cannot be read: {error}")]
    found: dict[str, ParameterSpec] = {}
    problems = []
    for name in annotated:
        if name.startswith("_") or "ClassVar" in str(annotated[name]):
            continue
        if name not in cls.__dict__:
            problems.append(FieldViolation(name, "has no default; every argument needs one"))
            continue
        try:
            found[name] = ParameterSpec.of(name, hints[name], cls.__dict__[name])
        except ValueError as error:
            problems.append(FieldViolation(name, str(error)))
    for name, value in cls.__dict__.items():
        is_code = isinstance(value, FunctionType | classmethod | staticmethod | property | type)
        if not name.startswith("_") and name not in annotated and not is_code:
            shown = value.default if isinstance(value, Declared) else value
            problem = f"has no type; write `{name}: {type(shown).__name__} = ...`, every argument needs one"
            problems.append(FieldViolation(name, problem))
    return found, problems
