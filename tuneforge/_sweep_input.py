"""Plans of sweeps as people give them (a dictionary, a JSON file) -> the message.

A plan is the JSON form of `SweepPlan`, with one more way to say what is searched: `space`, field -> a list of values,
or an object with `low` and `high`, or one with `choices`; the objects may have `when`, field -> list of values. Words
of enums may be written short. Everything that is wrong is listed at once; the scheduler checks values and ranges.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format

from tuneforge._spec_input import _WRONG, _Reader
from tuneforge.errors import InvalidArgument, Reason
from tuneforge.v1 import sweeps_pb2

_RANGE = {"low": float, "high": float, "step": float, "log": bool}


def read_plan(content: Mapping[str, Any]) -> sweeps_pb2.SweepPlan:
    """Returns the message of a plan.

    Raises:
        InvalidArgument: It cannot be one; `fields` lists everything that is wrong.
    """
    reader = _Reader()
    rest = {key: value for key, value in content.items() if key not in ("space", "parameters")}
    cleaned = reader.message(rest, sweeps_pb2.SweepPlan.DESCRIPTOR, "plan")
    for path, problem in reader.unfit_problems.items():
        reader.say(path, problem)
    space = content.get("space", {})
    if not isinstance(space, Mapping):
        reader.say("plan.space", "is no object: give field -> list of values, or field -> range")
        space = {}
    written = content.get("parameters", [])
    if not isinstance(written, list) or not all(isinstance(each, Mapping) for each in written):
        reader.say("plan.parameters", "is no list of objects: leave it out, and give `space`, field -> list of values")
        written = []
    parameters = [_parameter(reader, str(field), values) for field, values in space.items()]
    cleaned["parameters"] = [*written, *(each for each in parameters if each is not _WRONG)]
    plan = sweeps_pb2.SweepPlan()
    try:
        json_format.ParseDict(cleaned, plan)
    except (json_format.ParseError, ValueError) as error:
        reader.say("plan", f"cannot be read: {error}")
    if reader.violations:
        count = len(reader.violations)
        raise InvalidArgument(
            Reason.INVALID_FIELD,
            f"the plan has {count} {'field that is' if count == 1 else 'fields that are'} wrong",
            cure="Correct what is listed.",
            fields=reader.violations,
        )
    return plan


def _parameter(reader: _Reader, field: str, values: Any) -> Any:
    path = f"plan.space[{field}]"
    if isinstance(values, list | tuple):
        return {"field": field, "choices": {"values": list(values)}}
    if not isinstance(values, Mapping):
        reader.say(path, 'is neither a list of values nor a range: give [8, 16], or {"low": 1, "high": 2}')
        return _WRONG
    when = values.get("when", {})
    if not isinstance(when, Mapping) or not all(isinstance(each, list | tuple) for each in when.values()):
        reader.say(f"{path}.when", "is no object of lists: give field -> list of values")
        return _WRONG
    found = {key: value for key, value in values.items() if key != "when"}
    conditions = [{"field": name, "values": list(each)} for name, each in when.items()]
    if set(found) == {"choices"} and isinstance(found["choices"], list | tuple):
        return {"field": field, "choices": {"values": list(found["choices"])}, "when": conditions}
    for key, value in found.items():
        if key not in _RANGE:
            reader.say(f"{path}.{key}", f"is no field; there are {', '.join(_RANGE)}, choices, when")
        elif not isinstance(value, int | float) or isinstance(value, bool) is not (_RANGE[key] is bool):
            reader.say(f"{path}.{key}", f"is {value!r}: use {'true or false' if key == 'log' else 'a number'}")
    if missing := [key for key in ("low", "high") if key not in found]:
        reader.say(f"{path}.{missing[0]}", "is missing: a range has `low` and `high`")
    return {"field": field, "range": found, "when": conditions}
