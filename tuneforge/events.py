"""What happens in a job, as `JobHandle.watch` yields it: one dataclass for each kind of event."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from tuneforge import _wire, durations
from tuneforge.manifest import Manifest
from tuneforge.specs.spec import TrainingSpec
from tuneforge.specs.wire import spec_from_proto
from tuneforge.stalls import Stall as Stall
from tuneforge.stalls import stall_from_proto
from tuneforge.telemetry import DeviceMetrics as DeviceMetrics
from tuneforge.telemetry import DeviceSample as DeviceSample
from tuneforge.telemetry import device_metrics_from_proto
from tuneforge.v1 import events_pb2 as pb
from tuneforge.values import ArtifactKind, Failure, Word


class LogSeverity(Word):
    """How important a log line is."""

    UNKNOWN = "UNKNOWN"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class AttemptResult(Word):
    """How an attempt ended."""

    UNKNOWN = "UNKNOWN"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    INTERRUPTED = "INTERRUPTED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMetrics:
    """An optimiser step was finished."""

    step: int
    """From 1."""
    total_steps: int
    epoch: float
    """Passes over the rows so far, with fraction."""
    loss: float
    """Mean over the step's supervised tokens, in nats a token."""
    learning_rate: float
    grad_norm: float
    """Euclidean norm of all gradients before clipping."""
    tokens: int
    """Tokens computed, padding left out."""
    supervised_tokens: int
    """Tokens among them that the loss counts."""
    tokens_per_second: float
    step_seconds: float
    eta_s: float
    """Estimated seconds to the last step."""
    rows_digest: str
    """SHA-256 over the ids of the step's rows in order, first 16 hexadecimal digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationMetrics:
    """The validation loss was computed."""

    step: int
    """Last finished optimiser step."""
    loss: float
    """Mean over all validation rows, as in `StepMetrics`."""
    supervised_tokens: int
    rows: int
    is_best: bool = False
    """No evaluation of the run before it had so low a loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskMetrics:
    """What a task measures beside its loss."""

    step: int
    """Last finished optimiser step."""
    is_validation: bool
    """Whether it was measured on the validation rows, not on those of the step."""
    values: Mapping[str, float]
    """Means over the rows, by name, e.g. `rewards_accuracy`."""
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """A line for people."""

    severity: LogSeverity
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSaved:
    """A checkpoint was saved and verified."""

    step: int
    size_bytes: int
    digest: str
    blocked_seconds: float
    """Time that the run stood still for it: for a copy of its state, and for the save before to end."""
    written_seconds: float
    """Time that writing, syncing and hashing took beside the run."""
    weights_digest: str
    """SHA-256 of the file with the weights that move; equal weights give an equal file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointDurable:
    """A checkpoint was copied to the blob store: the job can go on without the node that saved it."""

    step: int
    size_bytes: int
    digest: str
    seconds: float
    """Time from the save's end to the copy's; the run did not wait for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A prompt was completed by the model as it is now."""

    step: int
    prompt: str
    completion: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """The job (attempt 0) or an attempt changed its state."""

    from_state: str
    """Empty at the beginning."""
    to_state: str
    reason: str
    """A stable word, e.g. `PLACED`."""
    message: str
    """A sentence for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Events were dropped because the spool was full; never those that a resume or a proof needs."""

    dropped: int
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogCompacted:
    """The log was thinned out by the operator's policy: of the events up to a number only some are left."""

    through_job_seq: int
    removed_events: int
    head: str
    """Head of the run's record after event `through_job_seq`, 64 hexadecimal digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumedFrom:
    """The attempt goes on from a checkpoint; the next step is `step + 1`."""

    step: int
    attempt: int
    """Attempt that had saved it."""
    digest: str
    checkpoint: str
    """Its name, when it was known to be in the blob store; of another job where the run branches off. Else empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Every `auto` of the spec was resolved, once, before the first step."""

    spec: TrainingSpec
    environment: Mapping[str, str]
    trainable_parameters: int
    total_parameters: int
    rows: int
    rows_dropped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptOutcome:
    """The attempt is over."""

    result: AttemptResult
    failure: Failure | None
    manifest: Manifest | None
    artifact_kind: ArtifactKind
    step: int
    metrics: Mapping[str, float]


Payload = (
    StepMetrics
    | DeviceMetrics
    | LogLine
    | CheckpointSaved
    | CheckpointDurable
    | Sample
    | StateChange
    | Gap
    | LogCompacted
    | EvaluationMetrics
    | TaskMetrics
    | ResumedFrom
    | Resolved
    | AttemptOutcome
    | Stall
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened in a job."""

    job: str
    """`projects/{project}/jobs/{job}`."""
    job_seq: int
    """Its number inside the job, dense from 1."""
    attempt: int
    """Attempt that it comes from, from 1; 0: the scheduler itself."""
    node_rank: int
    seq: int
    """Its number inside (attempt, node_rank), dense from 1; 0 when the scheduler made it."""
    time: datetime
    """By the clock of the machine where it happened."""
    kind: str
    """`step`, `device`, `log`, `checkpoint`, `sample`, `state`, `gap`, `evaluation`, `resumed_from`, `resolved`,
    `outcome`, `task`, `stall`, `compacted`; another word for a kind that this release does not know."""
    payload: Payload | None
    """What happened; None for a kind that this release does not know."""


def event_from_proto(message: pb.Event) -> Event:
    """Converts an event."""
    kind = message.WhichOneof("payload") or "unknown"
    convert = _CONVERTERS.get(kind)
    return Event(
        job=message.job,
        job_seq=message.job_seq,
        attempt=message.attempt,
        node_rank=message.node_rank,
        seq=message.seq,
        time=_wire.instant(message.time),
        kind=kind,
        payload=convert(getattr(message, kind)) if convert else None,
    )


def state_change(message: pb.StateChange) -> StateChange:
    """Converts a change of state."""
    return StateChange(
        from_state=getattr(message, "from"), to_state=message.to, reason=message.reason, message=message.message
    )


def _step(message: pb.StepMetrics) -> StepMetrics:
    return StepMetrics(
        step=message.step,
        total_steps=message.total_steps,
        epoch=message.epoch,
        loss=message.loss,
        learning_rate=message.learning_rate,
        grad_norm=message.grad_norm,
        tokens=message.tokens,
        supervised_tokens=message.supervised_tokens,
        tokens_per_second=message.tokens_per_second,
        step_seconds=message.step_seconds,
        eta_s=durations.to_seconds(message.eta),
        rows_digest=message.rows_digest,
    )


def _log(message: pb.LogLine) -> LogLine:
    # Unset is INFO by the contract.
    severity = _wire.word(LogSeverity, pb.LogSeverity.DESCRIPTOR, message.severity or pb.LOG_SEVERITY_INFO)
    return LogLine(severity=severity, message=message.message)


def _checkpoint(message: pb.CheckpointSaved) -> CheckpointSaved:
    return CheckpointSaved(
        step=message.step,
        size_bytes=message.size_bytes,
        digest=message.digest,
        blocked_seconds=message.blocked_seconds,
        written_seconds=message.written_seconds,
        weights_digest=message.weights_digest,
    )


def _durable(message: pb.CheckpointDurable) -> CheckpointDurable:
    return CheckpointDurable(
        step=message.step,
        size_bytes=sum(file.size_bytes for file in message.manifest.files),
        digest=message.manifest.digest,
        seconds=message.seconds,
    )


def _sample(message: pb.Sample) -> Sample:
    return Sample(step=message.step, prompt=message.prompt, completion=message.completion)


def _gap(message: pb.Gap) -> Gap:
    return Gap(dropped=message.dropped, kind=message.kind)


def _evaluation(message: pb.EvaluationMetrics) -> EvaluationMetrics:
    return EvaluationMetrics(
        step=message.step,
        loss=message.loss,
        supervised_tokens=message.supervised_tokens,
        rows=message.rows,
        is_best=message.is_best,
    )


def _task(message: pb.TaskMetrics) -> TaskMetrics:
    values = MappingProxyType(dict(sorted(message.values.items())))
    return TaskMetrics(step=message.step, is_validation=message.is_validation, values=values, rows=message.rows)


def _resumed_from(message: pb.ResumedFrom) -> ResumedFrom:
    return ResumedFrom(step=message.step, attempt=message.attempt, digest=message.digest, checkpoint=message.checkpoint)


def _resolved(message: pb.Resolved) -> Resolved:
    return Resolved(
        spec=spec_from_proto(message.spec),
        environment=_wire.frozen(message.environment),
        trainable_parameters=message.trainable_parameters,
        total_parameters=message.total_parameters,
        rows=message.rows,
        rows_dropped=message.rows_dropped,
    )


def _outcome(message: pb.AttemptOutcome) -> AttemptOutcome:
    return AttemptOutcome(
        result=_wire.word(AttemptResult, pb.AttemptResult.DESCRIPTOR, message.result),
        failure=_wire.failure(message.failure),
        manifest=_wire.manifest(message.manifest) if message.HasField("manifest") else None,
        artifact_kind=_wire.word(ArtifactKind, pb.ArtifactKind.DESCRIPTOR, message.artifact_kind),
        step=message.step,
        metrics=MappingProxyType(dict(message.metrics)),
    )


_CONVERTERS: Final[Mapping[str, Callable[[Any], Payload]]] = {
    "step": _step,
    "device": device_metrics_from_proto,
    "log": _log,
    "checkpoint": _checkpoint,
    "checkpoint_durable": _durable,
    "sample": _sample,
    "state": state_change,
    "gap": _gap,
    "evaluation": _evaluation,
    "task": _task,
    "resumed_from": _resumed_from,
    "resolved": _resolved,
    "outcome": _outcome,
    "stall": stall_from_proto,
}
