"""Validation reports: messages <-> plain values, and what a report must be like."""

import math
import re
from collections.abc import Iterator

from services.grpckit.errors import FieldViolation, invalid_fields
from services.registry.models.resources import Report
from services.registry.wire import timestamp
from tuneforge._check_wire import check_from_proto
from tuneforge.checks import report_text
from tuneforge.names import ModelVersionName
from tuneforge.v1 import validations_pb2

MOST_CHECKS = 100
MOST_DETAILS = 50
LONGEST_MESSAGE = 1024
LONGEST_DETAIL = 2048
LONGEST_SOURCE = 200
LARGEST_BYTES = 512 * 1024
"""Of one report; a page of lists holds several."""
TRAINER = "trainer"
"""Source of the reports that runs end with."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


def report_of(message: validations_pb2.ValidationReport, source: str) -> Report:
    """Converts a report that is to be stored.

    Args:
        message: As sent; its output-only fields are ignored.
        source: Who examined, when the report does not say.

    Raises:
        ServiceError: `INVALID_FIELD` with all that is wrong.
    """
    if violations := list(_violations(message)):
        raise invalid_fields(violations[:40])
    kept = validations_pb2.ValidationReport(
        checks=message.checks, source=message.source or source, not_run=message.not_run
    )
    record = kept.SerializeToString(deterministic=True)
    if len(record) > LARGEST_BYTES:
        problem = f"takes {len(record)} bytes; at most {LARGEST_BYTES} are taken"
        raise invalid_fields([FieldViolation("report", problem)])
    return Report(passed=all(check.passed for check in message.checks), record=record)


def report_of_run(message: validations_pb2.ValidationReport) -> Report:
    """Converts the report that a run ends with.

    Raises:
        ServiceError: As `report_of`.
    """
    return report_of(message, TRAINER)


def report_to_proto(name: ModelVersionName, report: Report) -> validations_pb2.ValidationReport:
    """Converts a stored report to its message."""
    message = validations_pb2.ValidationReport.FromString(report.record)
    message.name = str(name.validation(report.number))
    message.passed = report.passed
    message.create_time.CopyFrom(timestamp(report.create_time_us))
    message.creator = report.creator
    message.roles.extend(report.roles)
    message.text = report_text(str(name), [check_from_proto(check) for check in message.checks], dict(message.not_run))
    return message


def _violations(message: validations_pb2.ValidationReport) -> Iterator[FieldViolation]:
    if not 1 <= len(message.checks) <= MOST_CHECKS:
        yield FieldViolation("report.checks", f"has {len(message.checks)} entries; give 1 to {MOST_CHECKS}")
    if len(message.source) > LONGEST_SOURCE:
        yield FieldViolation("report.source", f"has {len(message.source)} characters; at most {LONGEST_SOURCE}")
    if len(message.not_run) > MOST_CHECKS:
        yield FieldViolation("report.not_run", f"has {len(message.not_run)} entries; at most {MOST_CHECKS}")
    names: set[str] = set()
    for number, check in enumerate(message.checks[:MOST_CHECKS]):
        place = f"report.checks[{number}]"
        if not _NAME.fullmatch(check.check_name):
            form = "give 1 to 63 of a-z 0-9 _, beginning with a letter"
            yield FieldViolation(f"{place}.check_name", f"is {check.check_name[:80]!r}; {form}")
        elif check.check_name in names:
            yield FieldViolation(f"{place}.check_name", f"is {check.check_name!r} a second time; name each check once")
        names.add(check.check_name)
        if len(check.message) > LONGEST_MESSAGE:
            yield FieldViolation(f"{place}.message", f"has {len(check.message)} characters; at most {LONGEST_MESSAGE}")
        if len(check.details) > MOST_DETAILS or any(len(value) > LONGEST_DETAIL for value in check.details.values()):
            problem = f"is too large; give at most {MOST_DETAILS} entries of {LONGEST_DETAIL} characters"
            yield FieldViolation(f"{place}.details", problem)
        if check.passed and check.HasField("score") and not math.isfinite(check.score):
            yield FieldViolation(f"{place}.score", f"is {check.score}; no such score can have passed")
