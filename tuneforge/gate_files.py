"""Gate policies as people write them: a small TOML or JSON file.

alias = "production"
rollback_skips_gates = true

[[gates]]
id = "accuracy-floor"
metric = "accuracy"          # of the version, or with `on` the mean of recorded scores
at_least = 0.8               # or more_than, at_most, less_than

[[gates]]
id = "safe"
check = "safety"
by = ["red-team"]            # whose reports count: principals, or roles as "role:editor"; evaluators unless it is said

[[gates]]
id = "better"
compare = "exact_match"      # with the version that the alias names
on = "held-out/1"
min_effect = 0.01
slices = { short = 0.02 }

[[gates]]
id = "people"
approvals = 2
"""

import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tuneforge.errors import FieldViolation, InvalidArgument, Reason
from tuneforge.gate_values import ApprovalGate, CheckGate, Comparator, ComparisonGate, Gate, GatePolicy, MetricGate
from tuneforge.json_files import read_json_file

_COMPARATORS = {each.value.lower(): each for each in Comparator}
_KINDS = ("metric", "check", "compare", "approvals")
_COMPARISON: Mapping[str, tuple[str, type]] = {
    "lower_is_better": ("lower_is_better", bool),
    "min_effect": ("min_effect", float),
    "confidence": ("confidence", float),
    "resamples": ("resamples", int),
    "seed": ("seed", int),
    "min_rows": ("min_rows", int),
}


def read_policy(path: str | os.PathLike[str]) -> GatePolicy:
    """Reads a policy from a file.

    Raises:
        InvalidArgument: The file cannot be read, or is not one; with all that is wrong.
    """
    file = Path(path)
    if file.suffix == ".json":
        return policy_of(read_json_file(file), source=str(file))
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        if isinstance(error, UnicodeDecodeError):
            problem = f"it is no text in UTF-8, from byte {error.start} on"
        message = f"{str(file)!r} cannot be read: {problem}"
        raise InvalidArgument(Reason.INVALID_FIELD, message, cure="Give a TOML or JSON file with a policy.") from None
    return policy_of(content, source=str(file))


def policy_of(content: Any, *, source: str = "the policy") -> GatePolicy:
    """Returns the policy that a mapping describes, in the form of the file.

    Raises:
        InvalidArgument: With all that is wrong.
    """
    problems: list[FieldViolation] = []
    if not isinstance(content, Mapping):
        problems.append(FieldViolation("", "is no table of settings"))
        content = {}
    reader = _Reader(content, "", problems)
    alias = reader.take("alias", str, default="")
    skips = reader.take("rollback_skips_gates", bool, default=False)
    entries = reader.take("gates", list, default=[])
    reader.end()
    if not alias:
        problems.append(FieldViolation("alias", "is missing; give the id of an alias, or a pattern such as prod-*"))
    gates = [_gate(_Reader(entry, f"gates[{number}]", problems)) for number, entry in enumerate(entries)]
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise InvalidArgument(
            Reason.INVALID_FIELD, f"{source} has {count}", fields=problems, cure="See `tuneforge gates set --help`."
        )
    return GatePolicy(alias=alias, rollback_skips_gates=skips, gates=tuple(gate for gate in gates if gate is not None))


class _Reader:
    """Takes the values of one table, and notes what is wrong with them."""

    def __init__(self, content: Any, place: str, problems: list[FieldViolation]) -> None:
        self._left = dict(content) if isinstance(content, Mapping) else {}
        self._place = place
        self._problems = problems
        if not isinstance(content, Mapping):
            self.wrong("", "is no table of settings")

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def wrong(self, key: str, problem: str) -> None:
        """Notes a problem."""
        self._problems.append(FieldViolation(".".join(part for part in (self._place, key) if part), problem))

    def take(self, key: str, kind: type, *, default: Any = None) -> Any:
        """Returns a value of a kind; the default when it is missing or of another kind."""
        value = self._left.pop(key, default)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if value is default or (isinstance(value, kind) and not (kind is int and isinstance(value, bool))):
            return value
        words = {str: "a text", bool: "true or false", int: "a whole number", float: "a number", list: "a list"}
        self.wrong(key, f"is {value!r}; give {words.get(kind, 'a table')}")
        return default

    def end(self) -> None:
        """Notes what nobody took."""
        for key in self._left:
            self.wrong(key, "is no setting that is known here")


def _gate(reader: _Reader) -> Gate | None:
    name = reader.take("id", str, default="")
    if not name:
        reader.wrong("id", "is missing; give a short id")
    kinds = [kind for kind in _KINDS if kind in reader]
    if len(kinds) != 1:
        reader.wrong("", f"needs one of {', '.join(_KINDS)}; it has {', '.join(kinds) or 'none'}")
        return None
    makers: dict[str, Callable[[_Reader, str], Gate]] = {
        "metric": _metric,
        "check": lambda entry, gate_id: CheckGate(
            id=gate_id, check=entry.take("check", str, default=""), by=_reporters(entry)
        ),
        "compare": _comparison,
        "approvals": lambda entry, gate_id: ApprovalGate(id=gate_id, approvals=entry.take("approvals", int, default=0)),
    }
    gate = makers[kinds[0]](reader, name)
    reader.end()
    return gate


def _metric(reader: _Reader, name: str) -> Gate:
    metric = reader.take("metric", str, default="")
    given = [word for word in _COMPARATORS if word in reader]
    if len(given) != 1:
        reader.wrong("", f"needs one of {', '.join(_COMPARATORS)}; it has {', '.join(given) or 'none'}")
    word = given[0] if given else "at_least"
    threshold = reader.take(word, float, default=0.0)
    for other in given[1:]:
        reader.take(other, float, default=0.0)
    dataset = reader.take("on", str, default=None)
    return MetricGate(
        id=name,
        metric=metric,
        comparator=_COMPARATORS[word],
        threshold=threshold,
        dataset=dataset,
        by=_reporters(reader),
    )


def _reporters(reader: _Reader) -> tuple[str, ...]:
    by = reader.take("by", list, default=[])
    if not all(isinstance(entry, str) for entry in by):
        reader.wrong("by", 'is no list of texts; give principals, or roles such as "role:evaluator"')
        return ()
    return tuple(by)


def _comparison(reader: _Reader, name: str) -> Gate:
    metric, dataset = reader.take("compare", str, default=""), reader.take("on", str, default="")
    if not dataset:
        reader.wrong("on", "is missing; give the data set version on which both have scores, such as held-out/1")
    slices = {}
    for label, tolerance in dict(reader.take("slices", dict, default={})).items():
        if isinstance(tolerance, int | float) and not isinstance(tolerance, bool):
            slices[label] = float(tolerance)
        else:
            reader.wrong(f"slices.{label}", f"is {tolerance!r}; give the loss that is put up with, a number")
    given = {attribute: reader.take(key, kind) for key, (attribute, kind) in _COMPARISON.items() if key in reader}
    options = {key: value for key, value in given.items() if value is not None}
    return ComparisonGate(id=name, metric=metric, dataset=dataset, slices=slices, by=_reporters(reader), **options)
