"""Training specs as people give them (dataclass, dictionary, JSON file) -> the message, with whole names.

A dictionary or file is the proto's JSON form, read strictly: everything that is wrong is listed at once, and a field
that does not exist is answered with the nearest one that does. Enum values may be written short (`"cosine"` for
`"LEARNING_RATE_SCHEDULE_COSINE"`). Ranges are not checked here: the services do, with the base's shapes at hand.
"""

import difflib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from tuneforge import _short_names as names
from tuneforge.errors import FieldViolation, InvalidArgument, Reason
from tuneforge.specs.spec import TrainingSpec
from tuneforge.specs.validation import validate
from tuneforge.specs.wire import spec_to_proto
from tuneforge.v1 import spec_pb2

SpecInput = TrainingSpec | Mapping[str, Any] | str | os.PathLike[str]
"""A spec, its JSON form as a dictionary, or the path of a file with its JSON form."""

_INTEGERS = {
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
}


def read_spec(source: SpecInput, project: str) -> spec_pb2.TrainingSpec:
    """Returns the message of a spec, with short names made whole.

    Raises:
        InvalidArgument: The file cannot be read, or the spec cannot be one; `fields` lists everything that is wrong.
    """
    if isinstance(source, TrainingSpec):
        message = _from_dataclass(source)
    else:
        message = _from_json(source if isinstance(source, Mapping) else read_json_file(Path(source)))
    _complete_names(message, project)
    return message


def _from_dataclass(spec: TrainingSpec) -> spec_pb2.TrainingSpec:
    try:
        return spec_to_proto(spec)
    except (ValueError, TypeError) as error:
        raise InvalidArgument(
            Reason.INVALID_FIELD,
            f"the spec cannot be sent: {error}",
            fields=validate(spec) if isinstance(error, ValueError) else (),
        ) from None


def read_json_file(path: Path) -> Mapping[str, Any]:
    """Returns what a JSON file has between { and }.

    Raises:
        InvalidArgument: It cannot be read, or is something else.
    """
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        message, cure = f"{str(path)!r} cannot be read: {error.strerror}", "Give the path of a JSON file with a spec."
    except UnicodeDecodeError:
        message, cure = f"{str(path)!r} is not UTF-8 text", "Save it as UTF-8."
    except json.JSONDecodeError as error:
        message = f"{str(path)!r} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        cure = "Correct this place."
    else:
        if isinstance(content, dict):
            return content
        message, cure = f"{str(path)!r} is no JSON object", "Write the fields of a spec between { and }."
    raise InvalidArgument(Reason.INVALID_FIELD, message, cure=cure)


def _from_json(content: Mapping[str, Any]) -> spec_pb2.TrainingSpec:
    reader = _Reader()
    cleaned = reader.message(content, spec_pb2.TrainingSpec.DESCRIPTOR, "")
    if not reader.violations:
        try:
            return json_format.ParseDict(cleaned, spec_pb2.TrainingSpec())
        except json_format.ParseError as error:
            reader.violations.append(FieldViolation("spec", str(error)))
    count = len(reader.violations)
    message = f"the spec has {count} {'field that is' if count == 1 else 'fields that are'} wrong"
    raise InvalidArgument(Reason.INVALID_FIELD, message, fields=reader.violations)


class _Reader:
    """Walks a dictionary beside the message's descriptor, and collects what is wrong."""

    def __init__(self) -> None:
        self.violations: list[FieldViolation] = []

    def message(self, content: Mapping[str, Any], descriptor: Descriptor, path: str) -> dict[str, Any]:
        """Returns the content with enum values written out."""
        known = {key: field for field in descriptor.fields for key in (field.name, field.json_name)}
        cleaned = {}
        for key, value in content.items():
            place = f"{path}.{key}" if path else str(key)
            field = known.get(str(key))
            if field is None:
                self._say(place, _unknown(str(key), [field.name for field in descriptor.fields]))
            elif value is not None:
                cleaned[field.name] = self._field(value, field, place)
        for group in descriptor.oneofs:
            chosen = [field.name for field in group.fields if field.name in cleaned]
            if len(chosen) > 1:
                self._say(path or "spec", f"has {' and '.join(f'`{name}`' for name in chosen)}: keep one of them")
        return cleaned

    def _field(self, value: Any, field: FieldDescriptor, path: str) -> Any:
        if not field.is_repeated:
            return self._single(value, field, path)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            if not isinstance(value, Mapping) or not all(isinstance(each, str) for each in value.values()):
                self._say(path, f"is {_shown(value)}: give an object of strings")
            return value
        if isinstance(value, str) or not isinstance(value, Sequence):
            self._say(path, f"is {_shown(value)}: give a list")
            return value
        return [self._single(each, field, f"{path}[{index}]") for index, each in enumerate(value)]

    def _single(self, value: Any, field: FieldDescriptor, path: str) -> Any:
        if field.message_type is not None and field.message_type.full_name == "google.protobuf.Duration":
            if not isinstance(value, str) or not value.endswith("s"):
                self._say(path, f'is {_shown(value)}: give seconds with an s, e.g. "600s"')
        elif field.message_type is not None:
            if isinstance(value, Mapping):
                return self.message(value, field.message_type, path)
            self._say(path, f"is {_shown(value)}: give an object")
        elif field.enum_type is not None:
            return self._enum(value, field.enum_type, path)
        elif problem := _scalar_problem(value, field.type):
            self._say(path, f"is {_shown(value)}: give {problem}")
        return value

    def _enum(self, value: Any, enum: EnumDescriptor, path: str) -> Any:
        prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
        words = {known.name.removeprefix(prefix).lower(): known.name for known in enum.values if known.number}
        if isinstance(value, str):
            if value in enum.values_by_name:
                return value
            if value.lower() in words:
                return words[value.lower()]
        self._say(path, f"is {_shown(value)}: give one of {', '.join(words)}")
        return value

    def _say(self, path: str, description: str) -> None:
        self.violations.append(FieldViolation(path, description))


def _unknown(key: str, fields: list[str]) -> str:
    nearest = difflib.get_close_matches(key, fields, n=1, cutoff=0.5)
    return f"is no field; did you mean `{nearest[0]}`?" if nearest else f"is no field; there are {', '.join(fields)}"


def _scalar_problem(value: Any, kind: int) -> str:
    """Returns what a field takes, when it does not take the value."""
    if kind in _INTEGERS:
        low, high = _INTEGERS[kind]
        if high > 2**32 and isinstance(value, str) and value.lstrip("-").isdigit():
            value = int(value)  # JSON's numbers are too short for 64 bits: proto JSON writes them as strings
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return "" if is_whole and low <= value <= high else f"a whole number from {low} to {high}"
    if kind == FieldDescriptor.TYPE_DOUBLE:
        return "" if isinstance(value, int | float) and not isinstance(value, bool) else "a number"
    if kind == FieldDescriptor.TYPE_BOOL:
        return "" if isinstance(value, bool) else "true or false"
    return "" if isinstance(value, str) else "a string"


def _shown(value: Any) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."


def _complete_names(message: spec_pb2.TrainingSpec, project: str) -> None:
    """Makes short names whole, in place."""
    if message.base.model:
        message.base.model = names.model_version(project, message.base.model)
    if message.base.output_of_job:
        message.base.output_of_job = names.job(project, message.base.output_of_job)
    for source in _sources(message):
        if source.dataset:
            source.dataset = names.dataset_version(project, source.dataset).removesuffix("/versions/latest")
    if message.output.model:
        message.output.model = names.model(project, message.output.model)


def _sources(message: spec_pb2.TrainingSpec) -> Iterator[spec_pb2.DataSource]:
    yield message.data.train
    if message.data.HasField("validation"):
        yield message.data.validation
