"""Findings, summaries and previews -> messages, and back; used by the SDK and by the registry."""

from typing import Final

from tuneforge.data.lint import (
    Finding,
    LengthPolicy,
    LintOptions,
    Part,
    PreviewToken,
    Progress,
    RowFate,
    RowPreview,
    Severity,
    Summary,
    TokenCounts,
    TokenFate,
)
from tuneforge.data.lint.options import LENGTH, MOST_LISTED
from tuneforge.specs.spec import OverlongPolicy
from tuneforge.v1 import lint_pb2 as pb
from tuneforge.v1 import spec_pb2

MOST_TOKENS: Final = 1 << 20
MOST_FINDINGS: Final = 100_000

_SEVERITY: Final = {each: pb.FindingSeverity.Value(f"FINDING_SEVERITY_{each.value}") for each in Severity}
_PART: Final = {each: pb.DatasetPart.Value(f"DATASET_PART_{each.value}") for each in Part}
_TOKEN_FATE: Final = {each: pb.TokenFate.Value(f"TOKEN_FATE_{each.value}") for each in TokenFate}
_ROW_FATE: Final = {each: pb.RowFate.Value(f"ROW_FATE_{each.value}") for each in RowFate}
_OVERLONG: Final = {each: spec_pb2.OverlongPolicy.Value(f"OVERLONG_POLICY_{each.name}") for each in OverlongPolicy}
_SEVERITY_OF: Final = {number: each for each, number in _SEVERITY.items()}
_PART_OF: Final = {number: each for each, number in _PART.items()}
_TOKEN_FATE_OF: Final = {number: each for each, number in _TOKEN_FATE.items()}
_ROW_FATE_OF: Final = {number: each for each, number in _ROW_FATE.items()}
_OVERLONG_OF: Final[dict[int, OverlongPolicy]] = {number: each for each, number in _OVERLONG.items()}
_TEXTS: Final = ("code", "check", "message", "cure", "is_probable", "row_id", "related_row_id", "file", "line", "field")
_COUNTS: Final = ("rows", "tokens", "supervised", "p50", "p90", "p99", "longest", "dropped", "truncated")


def overlong_to_proto(policy: OverlongPolicy) -> spec_pb2.OverlongPolicy.ValueType:
    """Converts a policy for overlong rows."""
    return _OVERLONG[policy]


def length_of(max_tokens: int, overlong: int) -> LengthPolicy:
    """Reads how long rows may be; 0 takes the usual limit, an unknown policy is DROP."""
    return LengthPolicy(
        max_tokens=max_tokens or LENGTH.max_tokens, overlong=_OVERLONG_OF.get(overlong, OverlongPolicy.DROP)
    )


def options_of(request: pb.LintDatasetVersionRequest) -> LintOptions:
    """Reads what a request asks for."""
    return LintOptions(
        only=tuple(request.checks),
        without=tuple(request.without_checks),
        length=length_of(request.max_tokens, request.overlong),
        most_listed=request.max_findings_per_code if request.HasField("max_findings_per_code") else MOST_LISTED,
    )


def response_of(item: Finding | Progress | Summary) -> pb.LintDatasetVersionResponse:
    """Converts what a lint yields."""
    if isinstance(item, Finding):
        return pb.LintDatasetVersionResponse(finding=_finding_to_proto(item))
    if isinstance(item, Progress):
        return pb.LintDatasetVersionResponse(progress=pb.LintProgress(rows=item.rows, file=item.file))
    return pb.LintDatasetVersionResponse(summary=_summary_to_proto(item))


def item_of(response: pb.LintDatasetVersionResponse) -> Finding | Progress | Summary | None:
    """Converts what came; None for a message that this release does not know."""
    kind = response.WhichOneof("payload")
    if kind == "finding":
        return _finding(response.finding)
    if kind == "progress":
        return Progress(rows=response.progress.rows, file=response.progress.file)
    return _summary(response.summary) if kind == "summary" else None


def preview_to_proto(preview: RowPreview) -> pb.RowPreview:
    """Converts a preview."""
    tokens = (pb.PreviewToken(id=token.id, text=token.text, fate=_TOKEN_FATE[token.fate]) for token in preview.tokens)
    return pb.RowPreview(
        row_id=preview.row_id,
        file=preview.file,
        line=preview.line,
        fate=_ROW_FATE[preview.fate],
        tokens=tokens,
        template_sha256=preview.template_sha256,
    )


def preview_of(message: pb.RowPreview) -> RowPreview:
    """Converts a preview."""
    tokens = tuple(
        PreviewToken(id=token.id, text=token.text, fate=_TOKEN_FATE_OF.get(token.fate, TokenFate.READ))
        for token in message.tokens
    )
    return RowPreview(
        row_id=message.row_id,
        file=message.file,
        line=message.line,
        fate=_ROW_FATE_OF.get(message.fate, RowFate.KEPT),
        tokens=tokens,
        template_sha256=message.template_sha256,
    )


def _finding_to_proto(finding: Finding) -> pb.LintFinding:
    message = pb.LintFinding(severity=_SEVERITY[finding.severity], part=_PART[finding.part])
    for name in _TEXTS:
        setattr(message, name, getattr(finding, name))
    return message


def _finding(message: pb.LintFinding) -> Finding:
    return Finding(
        severity=_SEVERITY_OF.get(message.severity, Severity.INFO),
        part=_PART_OF.get(message.part, Part.TRAIN),
        **{name: getattr(message, name) for name in _TEXTS},
    )


def _summary_to_proto(summary: Summary) -> pb.LintSummary:
    tokens = summary.tokens
    return pb.LintSummary(
        rows=summary.rows,
        validation_rows=summary.validation_rows,
        malformed=summary.malformed,
        findings=summary.findings,
        by_severity=summary.by_severity,
        by_code=summary.by_code,
        not_listed=summary.not_listed,
        checks=summary.checks,
        skipped=summary.skipped,
        tokens=pb.LintTokenCounts(**{name: getattr(tokens, name) for name in _COUNTS}) if tokens else None,
    )


def _summary(message: pb.LintSummary) -> Summary:
    tokens = None
    if message.HasField("tokens"):
        tokens = TokenCounts(**{name: getattr(message.tokens, name) for name in _COUNTS})
    return Summary(
        rows=message.rows,
        validation_rows=message.validation_rows,
        malformed=message.malformed,
        findings=message.findings,
        by_severity={each.value: message.by_severity.get(each.value, 0) for each in Severity},
        by_code=dict(sorted(message.by_code.items())),
        not_listed=dict(sorted(message.not_listed.items())),
        checks=tuple(message.checks),
        skipped=dict(sorted(message.skipped.items())),
        tokens=tokens,
    )
