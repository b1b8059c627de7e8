"""Training specs as people give them (dataclass, dictionary, JSON file) -> the message, with whole names.

A dictionary or file is the proto's JSON form, read strictly: everything that is wrong is listed at once, and a field
that does not exist is answered with the nearest one that does. Enum values may be written short (`"cosine"` for
`"LEARNING_RATE_SCHEDULE_COSINE"`). Ranges are checked in the same answer, and again by the services, with the base's
shapes at hand.
"""

import dataclasses
import difflib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration

from tuneforge import _short_names as names
from tuneforge.errors import FieldViolation, InvalidArgument, Reason
from tuneforge.json_files import read_json_file
from tuneforge.specs import quantities
from tuneforge.specs.spec import TrainingSpec
from tuneforge.specs.validation import validate
from tuneforge.specs.wire import spec_from_proto, spec_to_proto
from tuneforge.v1 import spec_pb2

SpecInput = TrainingSpec | Mapping[str, Any] | str | os.PathLike[str]
"""A spec, its JSON form as a dictionary, or the path of a file with its JSON form."""

_INTEGERS = {
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
}

_AMOUNTS: dict[str, tuple[str, Callable[[Any], int]]] = {
    "resources.cpu": ("cpu_millis", quantities.cpu_millis),
    "resources.memory": ("memory_bytes", quantities.memory_bytes),
}
"""What may be written with a unit, and the field of the same message that holds it."""

_WRONG = object()
"""Stands for a value that was refused."""

_END = FieldViolation("", "")
"""Ends the faults of a spec that no message can carry whole."""


def read_spec(source: SpecInput, project: str) -> spec_pb2.TrainingSpec:
    """Returns the message of a spec, with short names made whole.

    Raises:
        InvalidArgument: The file cannot be read, or the spec cannot be one; `fields` lists everything that is wrong.
    """
    if isinstance(source, TrainingSpec):
        message, found = _from_dataclass(source)
    else:
        message, found = _from_json(source if isinstance(source, Mapping) else read_json_file(Path(source)))
    malformed = _complete_names(message, project)
    is_whole = _can_travel(found)
    found = [each for each in found if each is not _END]
    if malformed or not is_whole:
        count = len(found) + len(malformed)
        raise InvalidArgument(
            Reason.INVALID_FIELD if found else Reason.INVALID_NAME,
            f"the spec has {count} {'field that is' if count == 1 else 'fields that are'} wrong",
            cure="Correct what is listed." if found else "Give an id, or a whole name of the form that is shown.",
            fields=[*found, *malformed],
        )
    return message


def _from_dataclass(spec: TrainingSpec) -> tuple[spec_pb2.TrainingSpec, list[FieldViolation]]:
    try:
        message = spec_to_proto(spec)
    except TypeError as error:
        raise InvalidArgument(Reason.INVALID_FIELD, f"the spec cannot be sent: {error}") from None
    except ValueError as error:  # a number that its field cannot carry
        found = _checked(spec) or [FieldViolation("spec", f"cannot be sent: {error}")]
        return spec_pb2.TrainingSpec(), [*found, _END]
    return message, _checked(spec)


def _can_travel(found: list[FieldViolation]) -> bool:
    """Returns whether the service can name what is wrong, together with what only it knows."""
    return not any(each is _END or each.description.startswith(("is nan", "is inf", "is -inf")) for each in found)


def _checked(spec: TrainingSpec) -> list[FieldViolation]:
    """Returns what the services would refuse too; "a number" that must be finite is called so when it is not."""
    return [
        FieldViolation(each.field, each.description.replace("use a number", "use a finite number"))
        if each.description.startswith(("is nan", "is inf", "is -inf"))
        else each
        for each in validate(spec)
    ]


def _from_json(content: Mapping[str, Any]) -> tuple[spec_pb2.TrainingSpec, list[FieldViolation]]:
    """Returns what can be read, and everything that is wrong with the rest or with the values."""
    reader = _Reader()
    message = spec_pb2.TrainingSpec()
    try:
        json_format.ParseDict(reader.message(content, spec_pb2.TrainingSpec.DESCRIPTOR, ""), message)
    except (json_format.ParseError, ValueError) as error:
        reader.say("spec", f"cannot be read: {error}")
    spec = spec_from_proto(message)
    for path, value in reader.unfit.items():
        spec = _with_number(spec, path, value)
    found = [each for each in _checked(spec) if not any(_concern(each.field, place) for place in reader.places)]
    said = {each.field for each in found}
    for path, problem in reader.unfit_problems.items():
        if path not in said:  # the value is in its range, but not one that travels
            reader.say(path, problem)
    if reader.violations or reader.unfit:
        found = [*reader.violations, *found, _END]
    return message, found


def _concern(field: str, place: str) -> bool:
    """Returns whether one of two paths lies within the other."""
    return (
        field == place or field.startswith((f"{place}.", f"{place}[")) or place.startswith((f"{field}.", f"{field}["))
    )


def _with_number(spec: TrainingSpec, path: str, value: int) -> TrainingSpec:
    """Returns the spec with a number that its message cannot carry, at a path of the message."""
    first, *rest = path.split(".")
    changed: TrainingSpec = _replaced(spec, ["method" if first in {"lora", "qlora"} else first, *rest], value)
    return changed


def _replaced(owner: Any, path: list[str], value: int) -> Any:
    first, *rest = path
    return dataclasses.replace(owner, **{first: _replaced(getattr(owner, first), rest, value) if rest else value})


class _Reader:
    """Walks a dictionary beside the message's descriptor, and collects what is wrong; the rest is the result."""

    def __init__(self) -> None:
        self.violations: list[FieldViolation] = []
        self.places: set[str] = set()
        """Where something is wrong, or was meant to stand: what is missing there is not worth a second line."""
        self.unfit: dict[str, int] = {}
        """Whole numbers that their field cannot carry: the field's own range says it better than the type's."""
        self.unfit_problems: dict[str, str] = {}

    def message(self, content: Mapping[str, Any], descriptor: Descriptor, path: str) -> dict[str, Any]:
        """Returns the content in proto JSON, with enum values written out."""
        known = {key: field for field in descriptor.fields for key in (field.name, field.json_name)}
        prefix = f"{path}." if path else ""
        cleaned: dict[str, Any] = {}
        for key, value in content.items():
            field = known.get(str(key))
            if field is None and (amount := _AMOUNTS.get(f"{prefix}{key}")) is not None:
                is_given = any(known[other].name == amount[0] for other in map(str, content) if other in known)
                self._amount(cleaned, f"{prefix}{key}", value, amount, is_given=is_given)
            elif field is None:
                self._unknown(prefix, str(key), [field.name for field in descriptor.fields])
            elif value is not None and (read := self._field(value, field, prefix + field.name)) is not _WRONG:
                cleaned[field.name] = read
        given = {known[str(key)].name for key, value in content.items() if str(key) in known and value is not None}
        for group in descriptor.oneofs:
            chosen = [field.name for field in group.fields if field.name in given]
            if not path and any(name not in cleaned for name in chosen):
                self.places.add(group.name)
            if len(chosen) > 1:
                self.say(path or group.name, f"has {' and '.join(f'`{name}`' for name in chosen)}: set one of them")
                for name in [name for name in chosen if name in cleaned][1:]:
                    del cleaned[name]
        return cleaned

    def say(self, path: str, description: str) -> None:
        """Adds a violation."""
        self.violations.append(FieldViolation(path, description))
        self.places.add(path)

    def _amount(
        self,
        cleaned: dict[str, Any],
        path: str,
        value: Any,
        amount: tuple[str, Callable[[Any], int]],
        *,
        is_given: bool,
    ) -> None:
        """Reads an amount as people write it into the field that holds it in plain numbers."""
        field, read = amount
        if value is None:
            return
        if is_given:
            self.say(path, f"stands beside `{field}`: set one of them")
            return
        try:
            if not isinstance(value, int | float | str):
                raise quantities.NotAQuantity(f"is {_shown(value)}: use a number or a string")
            cleaned[field] = read(value)
        except quantities.NotAQuantity as error:
            self.say(path, str(error))

    def _unknown(self, prefix: str, key: str, fields: list[str]) -> None:
        nearest = difflib.get_close_matches(key, fields, n=1, cutoff=0.5)
        self.say(f"{prefix}{key}", f"is no field; {f'did you mean `{nearest[0]}`?' if nearest else _listed(fields)}")
        self.places.update(prefix + name for name in nearest)

    def _wrong(self, path: str, value: Any, allowed: str) -> Any:
        self.say(path, f"is {_shown(value)}: use {allowed}")
        return _WRONG

    def _field(self, value: Any, field: FieldDescriptor, path: str) -> Any:
        if not field.is_repeated:
            return self._single(value, field, path)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            is_map = isinstance(value, Mapping) and all(isinstance(each, str) for each in (*value, *value.values()))
            return dict(value) if is_map else self._wrong(path, value, "an object of strings")
        if isinstance(value, str) or not isinstance(value, Sequence):
            return self._wrong(path, value, "a list")
        read = [self._single(each, field, f"{path}[{index}]") for index, each in enumerate(value)]
        return [each for each in read if each is not _WRONG]

    def _single(self, value: Any, field: FieldDescriptor, path: str) -> Any:
        if field.message_type is not None and field.message_type.full_name == "google.protobuf.Duration":
            return value if _is_duration(value) else self._wrong(path, value, 'seconds with an s, e.g. "600s"')
        if field.message_type is not None:
            if isinstance(value, Mapping):
                return self.message(value, field.message_type, path)
            return self._wrong(path, value, "an object")
        if field.enum_type is not None:
            return self._enum(value, field.enum_type, path)
        if field.type in _INTEGERS:
            return self._integer(value, field.type, path)
        if problem := _scalar_problem(value, field.type):
            return self._wrong(path, value, problem)
        return _proto_number(value) if field.type == FieldDescriptor.TYPE_DOUBLE else value

    def _integer(self, value: Any, kind: int, path: str) -> Any:
        low, high = _INTEGERS[kind]
        if high > 2**32 and isinstance(value, str) and value.removeprefix("-").isdecimal():
            value = int(value)  # JSON's numbers are too short for 64 bits: proto JSON writes them as strings
        if not isinstance(value, int) or isinstance(value, bool):
            return self._wrong(path, value, "a whole number")
        if low <= value <= high:
            return value
        self.unfit[path] = value
        self.unfit_problems[path] = f"is {_shown(value)}: use a whole number from {low} to {high}"
        return _WRONG

    def _enum(self, value: Any, enum: EnumDescriptor, path: str) -> Any:
        prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
        words = {known.name.removeprefix(prefix).lower(): known.name for known in enum.values if known.number}
        if isinstance(value, str):
            if value in enum.values_by_name:
                return value
            if value.lower() in words:
                return words[value.lower()]
        return self._wrong(path, value, f"one of {', '.join(words)}")


def _listed(fields: list[str]) -> str:
    return f"there are {', '.join(fields)}"


def _scalar_problem(value: Any, kind: int) -> str:
    """Returns what a field takes, when it does not take the value."""
    if kind == FieldDescriptor.TYPE_DOUBLE:
        return "" if isinstance(value, int | float) and not isinstance(value, bool) else "a number"
    if kind == FieldDescriptor.TYPE_BOOL:
        return "" if isinstance(value, bool) else "true or false"
    return "" if isinstance(value, str) else "a string"


def _proto_number(value: float) -> float | str:
    """Returns a number as proto JSON has it: those that are not finite are words, and are refused with their field."""
    try:
        number = float(value)
    except OverflowError:
        number = math.copysign(math.inf, value)
    if math.isnan(number):
        return "NaN"
    return number if math.isfinite(number) else "Infinity" if number > 0 else "-Infinity"


def _is_duration(value: Any) -> bool:
    try:
        Duration().FromJsonString(value)
    except (ValueError, TypeError, AttributeError):
        return False
    return True


def _shown(value: Any) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."


def _complete_names(message: spec_pb2.TrainingSpec, project: str) -> list[FieldViolation]:
    """Makes short names whole, in place; returns those that cannot be."""
    places: list[tuple[str, Any, str, Callable[[str, str], str]]] = [
        ("base.model", message.base, "model", names.model_version),
        ("base.output_of_job", message.base, "output_of_job", names.job),
        ("data.train.dataset", message.data.train, "dataset", _rows),
        ("data.validation.dataset", message.data.validation, "dataset", _rows),
        ("output.model", message.output, "model", names.model),
    ]
    malformed = []
    for path, owner, field, complete in places:
        if value := getattr(owner, field):
            try:
                setattr(owner, field, complete(project, value))
            except InvalidArgument as error:
                malformed.append(FieldViolation(path, error.message))
    return malformed


def _rows(project: str, value: str) -> str:
    return names.dataset_version(project, value).removesuffix("/versions/latest")
