"""Fields of requests about lint and preview; imported at the first such call, for the start need not pay it."""

from services.grpckit.errors import FieldViolation, invalid_fields
from tuneforge._lint_wire import MOST_FINDINGS, MOST_TOKENS, options_of
from tuneforge.data.lint.checks import chosen
from tuneforge.data.lint.lookup import SHORTEST_ID
from tuneforge.data.lint.options import UnknownCheck
from tuneforge.v1 import lint_pb2, spec_pb2


def check_lint(request: lint_pb2.LintDatasetVersionRequest) -> None:
    """Refuses a lint whose limits or checks are not known.

    Raises:
        ServiceError: `INVALID_FIELD` with all of them.
    """
    violations = _length_violations(request)
    if not 0 <= request.max_findings_per_code <= MOST_FINDINGS:
        problem = f"is {request.max_findings_per_code}; give 0 to {MOST_FINDINGS}"
        violations.append(FieldViolation("max_findings_per_code", problem))
    try:
        chosen(options_of(request))
    except UnknownCheck as error:
        violations.append(FieldViolation("checks", str(error)))
    if violations:
        raise invalid_fields(violations)


def check_preview(request: lint_pb2.PreviewDatasetRowRequest) -> None:
    """Refuses a preview that names no row.

    Raises:
        ServiceError: `INVALID_FIELD` with all that is wrong.
    """
    violations = _length_violations(request)
    kind = request.WhichOneof("row")
    if kind is None:
        violations.append(FieldViolation("row", "is not set; give `number` or `row_id`"))
    elif kind == "number" and request.number < 1:
        violations.append(FieldViolation("number", f"is {request.number}; rows are counted from 1"))
    elif kind == "row_id" and not _is_row_id(request.row_id):
        problem = f"is {request.row_id[:80]!r}; give {SHORTEST_ID} to 64 hexadecimal digits"
        violations.append(FieldViolation("row_id", problem))
    if violations:
        raise invalid_fields(violations)


def _is_row_id(text: str) -> bool:
    return SHORTEST_ID <= len(text) <= 64 and not set(text) - set("0123456789abcdefABCDEF")


def _length_violations(
    request: lint_pb2.LintDatasetVersionRequest | lint_pb2.PreviewDatasetRowRequest,
) -> list[FieldViolation]:
    violations = []
    if not 0 <= request.max_tokens <= MOST_TOKENS:
        problem = f"is {request.max_tokens}; give 1 to {MOST_TOKENS}, or 0 for 1024"
        violations.append(FieldViolation("max_tokens", problem))
    if request.overlong not in spec_pb2.OverlongPolicy.DESCRIPTOR.values_by_number:
        violations.append(FieldViolation("overlong", f"is {request.overlong}; give DROP, TRUNCATE, REFUSE or SPLIT"))
    return violations
