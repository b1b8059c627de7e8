"""Policies, results and evaluations <-> messages."""

from collections.abc import Iterable, Mapping

from services.registry.gates.approval_store import ApprovalRow
from services.registry.gates.evaluation_store import EvaluationRow
from services.registry.gates.policy_store import PolicyRow, policy_etag
from services.registry.gates.resources import (
    DEFAULT_CONFIDENCE,
    DEFAULT_MIN_ROWS,
    DEFAULT_RESAMPLES,
    ApprovalGate,
    CheckGate,
    Comparator,
    ComparisonGate,
    Gate,
    GatePolicy,
    GateReport,
    GateResult,
    MetricGate,
    Rule,
    SliceGuard,
)
from services.registry.gates.rules import Check
from services.registry.wire import timestamp
from tuneforge.v1 import gates_pb2 as pb
from tuneforge.v1 import models_pb2, validations_pb2

_COMPARATOR = "COMPARATOR_"


# --- policies ---------------------------------------------------------------------------------------------------------
def policy_of_row(row: PolicyRow) -> GatePolicy:
    """Reads a stored revision."""
    message = pb.GatePolicy.FromString(row.record)
    return GatePolicy(
        name=row.name,
        alias_pattern=message.alias_pattern,
        gates=tuple(gate_of(gate) for gate in message.gates),
        rollback_skips_gates=message.rollback_skips_gates,
        revision=row.revision,
        actor=row.actor,
        time_us=row.time_us,
    )


def gate_of(message: pb.Gate) -> Gate:
    """Converts a gate that was checked; see `requests.gate_violations`."""
    return Gate(id=message.id, rule=_rule_of(message))


def _rule_of(message: pb.Gate) -> Rule:
    match message.WhichOneof("rule"):
        case "metric":
            metric = message.metric
            return MetricGate(
                metric=metric.metric,
                comparator=Comparator(pb.Comparator.Name(metric.comparator).removeprefix(_COMPARATOR)),
                threshold=metric.threshold,
                dataset=metric.dataset,
                dataset_digest=metric.dataset_digest,
                by=tuple(metric.by),
            )
        case "check":
            return CheckGate(check=message.check.check, by=tuple(message.check.by))
        case "approval":
            return ApprovalGate(approvals=message.approval.approvals)
    comparison = message.comparison
    return ComparisonGate(
        metric=comparison.metric,
        dataset=comparison.dataset,
        dataset_digest=comparison.dataset_digest,
        lower_is_better=comparison.lower_is_better,
        min_effect=comparison.min_effect,
        confidence=comparison.confidence or DEFAULT_CONFIDENCE,
        resamples=comparison.resamples or DEFAULT_RESAMPLES,
        seed=comparison.seed,
        min_rows=comparison.min_rows or DEFAULT_MIN_ROWS,
        slices=tuple(SliceGuard(slice=each.slice, tolerance=each.tolerance) for each in comparison.slices),
        by=tuple(comparison.by),
    )


def record_of(policy: pb.GatePolicy, digests: Mapping[str, str]) -> bytes:
    """Returns what is stored of a policy: as it was sent, with defaults filled in and data sets by digest.

    Args:
        policy: As sent, checked.
        digests: Name of each data set version that it names -> its digest.
    """
    kept = pb.GatePolicy(
        alias_pattern=policy.alias_pattern,
        gates=policy.gates,
        rollback_skips_gates=policy.rollback_skips_gates,
    )
    for gate in kept.gates:
        if gate.HasField("metric"):
            gate.metric.dataset_digest = digests.get(gate.metric.dataset, "")
        elif gate.HasField("comparison"):
            comparison = gate.comparison
            comparison.dataset_digest = digests[comparison.dataset]
            comparison.confidence = comparison.confidence or DEFAULT_CONFIDENCE
            comparison.resamples = comparison.resamples or DEFAULT_RESAMPLES
            comparison.min_rows = comparison.min_rows or DEFAULT_MIN_ROWS
    return kept.SerializeToString(deterministic=True)


def policy_to_proto(row: PolicyRow) -> pb.GatePolicy:
    """Converts a stored revision to its message."""
    message = pb.GatePolicy.FromString(row.record)
    message.name = str(row.name)
    message.etag = policy_etag(row)
    message.revision = row.revision
    message.update_time.CopyFrom(timestamp(row.time_us))
    message.actor = row.actor
    return message


def policy_change_to_proto(row: PolicyRow) -> pb.GatePolicyChange:
    """Converts a stored revision to an entry of the log."""
    return pb.GatePolicyChange(policy=policy_to_proto(row), is_deletion=row.is_deletion, reason=row.reason)


# --- results ----------------------------------------------------------------------------------------------------------
def report_to_proto(report: GateReport) -> pb.GateReport:
    """Converts what all gates said."""
    model = report.alias.parent
    return pb.GateReport(
        alias=str(report.alias),
        version=str(model.version(report.version)),
        champion=str(model.version(report.champion)) if report.champion else "",
        is_passed=report.is_passed,
        results=(_result_to_proto(result, report) for result in report.results),
        skipped_policies=map(str, report.skipped),
        time=timestamp(report.time_us),
    )


def _result_to_proto(result: GateResult, report: GateReport) -> pb.GateResult:
    return pb.GateResult(
        policy=str(result.policy),
        revision=result.revision,
        gate=result.gate.id,
        kind=pb.GateKind.Value(f"GATE_KIND_{result.gate.kind}"),
        is_passed=result.is_passed,
        observed=result.observed,
        required=result.required,
        margin=result.margin,
        sentence=result.sentence,
        comparison=_evidence_to_proto(result, report),
    )


def _evidence_to_proto(result: GateResult, report: GateReport) -> pb.ComparisonEvidence | None:
    rule, found = result.gate.rule, result.evidence
    if found is None or not isinstance(rule, ComparisonGate):
        return None
    return pb.ComparisonEvidence(
        champion=str(report.alias.parent.version(report.champion)),
        dataset_digest=rule.dataset_digest,
        rows=found.rows,
        effect=found.effect,
        lower_bound=found.lower_bound,
        confidence=rule.confidence,
        resamples=rule.resamples,
        seed=rule.seed,
        slices=(
            pb.SliceEvidence(
                slice=part.slice,
                rows=part.rows,
                effect=part.effect,
                lower_bound=part.lower_bound,
                tolerance=part.tolerance,
                is_passed=part.is_passed,
            )
            for part in found.slices
        ),
    )


# --- what they are judged by ------------------------------------------------------------------------------------------
def metrics_of_record(record: bytes) -> Mapping[str, float]:
    """Reads the figures in what is stored of a model version."""
    return dict(models_pb2.ModelVersion.FromString(record).metrics)


def checks_of_records(records: Iterable[bytes]) -> Mapping[str, Check]:
    """Returns what the newest report with each check says of it.

    Args:
        records: Stored validation reports, newest first.
    """
    checks: dict[str, Check] = {}
    for record in records:
        for check in validations_pb2.ValidationReport.FromString(record).checks:
            checks.setdefault(check.check_name, Check(is_passed=check.passed, message=check.message))
    return checks


def approval_to_proto(row: ApprovalRow) -> pb.Approval:
    """Converts an entry of the log of approvals."""
    return pb.Approval(
        alias=str(row.alias),
        version=str(row.alias.parent.version(row.version)),
        actor=row.actor,
        is_revoked=row.is_revoked,
        reason=row.reason,
        time=timestamp(row.time_us),
    )


def evaluation_to_proto(row: EvaluationRow) -> pb.VersionEvaluation:
    """Converts an evaluation to its message."""
    return pb.VersionEvaluation(
        version=str(row.version),
        dataset=row.dataset,
        dataset_digest=row.dataset_digest,
        metric=row.metric,
        rows=row.evaluated.rows,
        mean=row.evaluated.mean,
        slices=row.slices,
        digest=row.evaluated.digest,
        create_time=timestamp(row.create_time_us),
        creator=row.creator,
        roles=row.roles,
    )
