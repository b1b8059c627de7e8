"""Messages of gates <-> plain values."""

from tuneforge import _wire
from tuneforge.gate_values import (
    Approval,
    ApprovalGate,
    CheckGate,
    Comparator,
    ComparisonEvidence,
    ComparisonGate,
    Gate,
    GateKind,
    GatePolicy,
    GatePolicyChange,
    GateReport,
    GateResult,
    MetricGate,
    RecordedEvaluation,
    SliceEvidence,
)
from tuneforge.v1 import gates_pb2 as pb

_COMPARATOR = "COMPARATOR_"


def gate_to_proto(gate: Gate) -> pb.Gate:
    """Converts a gate to its message; its data sets are whole names."""
    match gate:
        case MetricGate():
            comparator = pb.Comparator.Value(_COMPARATOR + gate.comparator.value)
            metric = pb.MetricGate(
                metric=gate.metric,
                comparator=comparator,
                threshold=gate.threshold,
                dataset=gate.dataset or "",
                by=gate.by,
            )
            return pb.Gate(id=gate.id, metric=metric)
        case CheckGate():
            return pb.Gate(id=gate.id, check=pb.CheckGate(check=gate.check, by=gate.by))
        case ApprovalGate():
            return pb.Gate(id=gate.id, approval=pb.ApprovalGate(approvals=gate.approvals))
    comparison = pb.ComparisonGate(
        metric=gate.metric,
        dataset=gate.dataset,
        lower_is_better=gate.lower_is_better,
        min_effect=gate.min_effect,
        confidence=gate.confidence,
        resamples=gate.resamples,
        seed=gate.seed,
        min_rows=gate.min_rows,
        slices=(pb.SliceGuard(slice=label, tolerance=tolerance) for label, tolerance in gate.slices.items()),
        by=gate.by,
    )
    return pb.Gate(id=gate.id, comparison=comparison)


def _gate(message: pb.Gate) -> Gate:
    match message.WhichOneof("rule"):
        case "check":
            return CheckGate(id=message.id, check=message.check.check, by=tuple(message.check.by))
        case "approval":
            return ApprovalGate(id=message.id, approvals=message.approval.approvals)
        case "comparison":
            rule = message.comparison
            return ComparisonGate(
                id=message.id,
                metric=rule.metric,
                dataset=rule.dataset,
                lower_is_better=rule.lower_is_better,
                min_effect=rule.min_effect,
                confidence=rule.confidence,
                resamples=rule.resamples,
                seed=rule.seed,
                min_rows=rule.min_rows,
                slices={guard.slice: guard.tolerance for guard in rule.slices},
                by=tuple(rule.by),
            )
    metric = message.metric
    return MetricGate(
        id=message.id,
        metric=metric.metric,
        comparator=Comparator(pb.Comparator.Name(metric.comparator).removeprefix(_COMPARATOR)),
        threshold=metric.threshold,
        dataset=metric.dataset or None,
        by=tuple(metric.by),
    )


def policy(message: pb.GatePolicy) -> GatePolicy:
    """Converts a policy."""
    return GatePolicy(
        name=message.name,
        alias=message.alias_pattern,
        gates=tuple(map(_gate, message.gates)),
        rollback_skips_gates=message.rollback_skips_gates,
        etag=message.etag,
        revision=message.revision,
        actor=message.actor,
        update_time=_wire.instant_or_none(message.update_time),
    )


def policy_change(message: pb.GatePolicyChange) -> GatePolicyChange:
    """Converts a revision."""
    return GatePolicyChange(policy=policy(message.policy), is_deletion=message.is_deletion, reason=message.reason)


def report(message: pb.GateReport) -> GateReport:
    """Converts what all gates said."""
    return GateReport(
        alias=message.alias,
        version=message.version,
        champion=message.champion or None,
        is_passed=message.is_passed,
        results=tuple(map(_result, message.results)),
        skipped_policies=tuple(message.skipped_policies),
        time=_wire.instant(message.time),
    )


def _result(message: pb.GateResult) -> GateResult:
    return GateResult(
        policy=message.policy,
        revision=message.revision,
        gate=message.gate,
        kind=_wire.word(GateKind, pb.GateKind.DESCRIPTOR, message.kind),
        is_passed=message.is_passed,
        observed=message.observed if message.HasField("observed") else None,
        required=message.required if message.HasField("required") else None,
        margin=message.margin if message.HasField("margin") else None,
        sentence=message.sentence,
        comparison=_evidence(message.comparison) if message.HasField("comparison") else None,
    )


def _evidence(message: pb.ComparisonEvidence) -> ComparisonEvidence:
    return ComparisonEvidence(
        champion=message.champion,
        dataset_digest=message.dataset_digest,
        rows=message.rows,
        effect=message.effect,
        lower_bound=message.lower_bound,
        confidence=message.confidence,
        resamples=message.resamples,
        seed=message.seed,
        slices=tuple(
            SliceEvidence(
                slice=part.slice,
                rows=part.rows,
                effect=part.effect,
                lower_bound=part.lower_bound,
                tolerance=part.tolerance,
                is_passed=part.is_passed,
            )
            for part in message.slices
        ),
    )


def approval(message: pb.Approval) -> Approval:
    """Converts an entry of the log of approvals."""
    return Approval(
        alias=message.alias,
        version=message.version,
        actor=message.actor,
        is_revoked=message.is_revoked,
        reason=message.reason,
        time=_wire.instant(message.time),
    )


def evaluation(message: pb.VersionEvaluation) -> RecordedEvaluation:
    """Converts an evaluation."""
    return RecordedEvaluation(
        version=message.version,
        dataset=message.dataset,
        dataset_digest=message.dataset_digest,
        metric=message.metric,
        rows=message.rows,
        mean=message.mean,
        slices=tuple(message.slices),
        digest=message.digest,
        create_time=_wire.instant(message.create_time),
        creator=message.creator,
        roles=tuple(message.roles),
    )
