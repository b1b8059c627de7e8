"""Checks of a model: message <-> dataclass, alike for SDK, registry and trainer."""

from collections.abc import Mapping, Sequence

from tuneforge.checks import Check
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
