"""Fields of a training spec by their paths: which there are, what they take, and specs with other values in them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from services.scheduler.sweeps.plan import Scalar, Value
from services.scheduler.sweeps.space import Point
from tuneforge.v1 import spec_pb2

FIXED = ("base", "output", "resources", "data.train", "data.validation")
"""What all trials of a sweep have in common."""
_INTEGERS = {
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**53),
}
"""JSON numbers are exact up to 2^53."""


class NoField(ValueError):
    """A path does not lead to a field that can be searched; the text says why, to follow on the path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecField:
    """A field of the spec with one value or a list of values."""

    path: str
    kind: FieldDescriptor

    @property
    def is_integer(self) -> bool:
        """Whether it takes whole numbers only."""
        return self.kind.type in _INTEGERS

    @property
    def is_number(self) -> bool:
        """Whether it takes one number."""
        return not self.kind.is_repeated and (self.is_integer or self.kind.type == FieldDescriptor.TYPE_DOUBLE)

    def read(self, value: Value) -> Value:
        """Returns a value as the field has it; equal values are written in one way.

        Raises:
            ValueError: It does not take the value; the text says what it takes.
        """
        if not self.kind.is_repeated:
            if isinstance(value, tuple):
                raise ValueError("one value, not a list")
            return self._single(value)
        if not isinstance(value, tuple):
            raise ValueError("a list")  # noqa: TRY004 - as below
        return tuple(self._single(each) for each in value)

    def _single(self, value: Scalar) -> Scalar:
        if self.kind.enum_type is not None:
            return _word(value, self.kind.enum_type)
        if self.is_integer:
            return _whole(value, _INTEGERS[self.kind.type])
        if self.kind.type == FieldDescriptor.TYPE_DOUBLE:
            if isinstance(value, bool | str) or not math.isfinite(value):
                raise ValueError("a finite number")
            return float(value)
        wanted: tuple[type, str] = (bool, "true or false")
        if self.kind.type == FieldDescriptor.TYPE_STRING:
            wanted = (str, "a string")
        if not isinstance(value, wanted[0]):
            raise ValueError(wanted[1])  # noqa: TRY004 - of the request, not of the program
        return value


def _whole(value: Scalar, limits: tuple[int, int]) -> int:
    low, high = limits
    if isinstance(value, bool | str) or value != round(value) or not low <= value <= high:
        raise ValueError(f"a whole number from {low} to {high}")
    return round(value)


def _word(value: Scalar, enum: EnumDescriptor) -> str:
    prefix = _prefix(enum)
    words = [each.name.removeprefix(prefix).lower() for each in enum.values if each.number]
    word = str(value).removeprefix(prefix).lower()
    if word not in words:
        raise ValueError(f"one of {', '.join(words)}")
    return word


def _prefix(enum: EnumDescriptor) -> str:
    return str(enum.values_by_number[0].name).removesuffix("UNSPECIFIED")


def find_field(path: str, spec: spec_pb2.TrainingSpec | None = None) -> SpecField:
    """Returns a field that can be searched: of a given spec, or where it was found in it before.

    Raises:
        NoField: There is none of this path, it is the same for all trials, or the spec has chosen something else.
    """
    if (fixed := next((each for each in FIXED if path == each or path.startswith(f"{each}.")), None)) is not None:
        raise NoField(f"cannot be searched: all trials have the same `{fixed}`")
    owner: Descriptor = spec_pb2.TrainingSpec.DESCRIPTOR
    holder: Any = spec
    *parents, last = path.split(".")
    for index, part in enumerate([*parents, last]):
        kind = _named(owner, part)
        if holder is not None:
            _require_chosen(holder, kind)
        if index == len(parents):
            if kind.message_type is not None:
                within = kind.message_type.full_name.startswith("tuneforge.") and not kind.is_repeated
                raise NoField("is no single value" + (f"; name a field of it, e.g. {_example(kind, path)}" * within))
            return SpecField(path=path, kind=kind)
        if kind.message_type is None or kind.is_repeated:
            raise NoField(f"is no field: `{part}` has no fields")
        owner, holder = kind.message_type, None if holder is None else getattr(holder, part)
    raise NoField("is no field")


def _named(owner: Descriptor, part: str) -> FieldDescriptor:
    kind = owner.fields_by_name.get(part)
    if kind is None:
        known = [field.name for field in owner.fields]
        nearest = difflib.get_close_matches(part, known, n=1, cutoff=0.5)
        raise NoField(f"is no field; {f'did you mean `{nearest[0]}`?' if nearest else 'there are ' + ', '.join(known)}")
    return kind


def _example(kind: FieldDescriptor, path: str) -> str:
    fields = kind.message_type.fields if kind.message_type is not None else []
    return f"`{path}.{fields[0].name}`" if fields else "none"


def _require_chosen(holder: Any, kind: FieldDescriptor) -> None:
    group = kind.containing_oneof
    if group is None or group.name.startswith("_"):  # what is only optional has a group of one
        return
    chosen = holder.WhichOneof(group.name)
    if chosen != kind.name and (chosen is not None or group.name != "length"):
        what = f"the spec has `{chosen}`" if chosen else "the spec does not have it"
        raise NoField(f"cannot be searched: {what}, and a sweep does not change its {group.name}")


def with_values(spec: spec_pb2.TrainingSpec, point: Point) -> spec_pb2.TrainingSpec:
    """Returns a spec with other values in some fields; each was found and read here before."""
    changed = spec_pb2.TrainingSpec()
    changed.CopyFrom(spec)
    for path, value in point.items():
        found = find_field(path)
        *parents, last = path.split(".")
        owner: Any = changed
        for part in parents:
            owner = getattr(owner, part)
        put = _coder(found.kind)
        if isinstance(value, tuple):
            owner.ClearField(last)
            getattr(owner, last).extend(put(each) for each in value)
        else:
            setattr(owner, last, put(value))
    return changed


def _coder(kind: FieldDescriptor) -> Callable[[Scalar], Scalar]:
    enum = kind.enum_type
    if enum is None:
        return lambda value: value
    return lambda word: int(enum.values_by_name[_prefix(enum) + str(word).upper()].number)
