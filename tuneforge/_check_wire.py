"""Checks of a model: message <-> dataclass, alike for SDK, registry and trainer."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError

from tuneforge.checks import Check
from tuneforge.errors import InvalidArgument, Reason
from tuneforge.v1 import validations_pb2


def check_from_proto(message: validations_pb2.CheckResult) -> Check:
    """Converts one check."""
    return Check(
        name=message.check_name,
        passed=message.passed,
        score=message.score if message.HasField("score") else None,
        threshold=message.threshold if message.HasField("threshold") else None,
        message=message.message,
        details=dict(message.details),
    )


def report_from_json(content: Mapping[str, Any]) -> tuple[list[Check], dict[str, str]]:
    """Reads what `checks.report_json` wrote: the checks, and those that could not be made with the reason.

    Raises:
        InvalidArgument: It is something else, or a check has a number that is not finite.
    """
    known = {name: content[name] for name in ("checks", "not_run") if name in content}
    _refuse_what_is_not_finite(known.get("checks"))
    try:
        message = ParseDict(known, validations_pb2.ValidationReport())
    except ParseError as error:
        cure = "Give what `tuneforge validate --output FILE.json` writes."
        raise InvalidArgument(Reason.INVALID_FIELD, f"it is no validation report: {error}", cure=cure) from None
    return [check_from_proto(check) for check in message.checks], dict(message.not_run)


def _refuse_what_is_not_finite(checks: Any) -> None:
    """Python reads NaN, Infinity and numbers beyond the largest from JSON; protobuf reads the words in quotes."""
    for number, check in enumerate(checks if isinstance(checks, list) else ()):
        for key in ("score", "threshold") if isinstance(check, dict) else ():
            if not _is_finite(check.get(key)):
                place = f"the {key} of the check {str(check.get('check_name', f'number {number + 1}'))[:80]!r}"
                cure = f"Give a finite number, or leave the {key} out where nothing was measured."
                raise InvalidArgument(Reason.INVALID_FIELD, f"{place} is {check[key]}, no finite number", cure=cure)


def _is_finite(value: Any) -> bool:
    if isinstance(value, str):
        return value not in {"NaN", "Infinity", "-Infinity"}
    return not isinstance(value, float) or math.isfinite(value)


def report_to_proto(
    checks: Sequence[Check], not_run: Mapping[str, str], source: str = ""
) -> validations_pb2.ValidationReport:
    """Makes a report of checks."""
    return validations_pb2.ValidationReport(
        checks=[
            validations_pb2.CheckResult(
                check_name=check.name,
                passed=check.passed,
                score=check.score,
                threshold=check.threshold,
                message=check.message,
                details=check.details,
            )
            for check in checks
        ],
        passed=all(check.passed for check in checks),
        source=source,
        not_run=not_run,
    )
