"""What the engine reports, as messages of the contract: here the engine's words become those of the wire."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from services.trainer.engine.checkpoint_writer import EndedSave
from services.trainer.engine.training_task import EventSink
from tuneforge.manifest import Manifest
from tuneforge.v1 import events_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """Measurements of one optimiser step; the fields are those of `StepMetrics`."""

    step: int
    total_steps: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    supervised_tokens: int
    seconds: float
    eta_s: float
    row_ids: Sequence[str]


def step_metrics(report: StepReport) -> events_pb2.StepMetrics:
    """Returns the event of a finished step."""
    eta = Duration()
    eta.FromMilliseconds(round(report.eta_s * 1000))
    return events_pb2.StepMetrics(
        step=report.step,
        total_steps=report.total_steps,
        epoch=report.epoch,
        loss=report.loss,
        learning_rate=report.learning_rate,
        grad_norm=report.grad_norm,
        tokens=report.tokens,
        supervised_tokens=report.supervised_tokens,
        tokens_per_second=report.tokens / report.seconds if report.seconds > 0 else 0.0,
        step_seconds=report.seconds,
        eta=eta,
        rows_digest=rows_digest(report.row_ids),
    )


def task_metrics(
    sink: EventSink, step: int, figures: Mapping[str, float], rows: int, *, is_validation: bool = False
) -> None:
    """Reports what the task measures beside its loss; nothing where it measures nothing."""
    if figures:
        sink.emit(events_pb2.TaskMetrics(step=step, is_validation=is_validation, values=figures, rows=rows))


def rows_digest(row_ids: Sequence[str]) -> str:
    """Returns the first 16 hexadecimal digits of the SHA-256 over row ids in order, one a line."""
    return hashlib.sha256("".join(f"{row_id}\n" for row_id in row_ids).encode()).hexdigest()[:16]


def checkpoint_saved(save: EndedSave, manifest: Manifest) -> events_pb2.CheckpointSaved:
    """Returns the event of a save that is over, with the manifest of what is on disk."""
    weights = manifest.file("weights.safetensors")
    return events_pb2.CheckpointSaved(
        step=save.step,
        size_bytes=manifest.size_bytes,
        digest=manifest.digest,
        blocked_seconds=save.blocked_seconds,
        written_seconds=save.written_seconds,
        weights_digest=weights.sha256 if weights else "",
    )


def note(sink: EventSink, message: str) -> None:
    """Reports normal progress in a sentence."""
    sink.emit(events_pb2.LogLine(severity=events_pb2.LOG_SEVERITY_INFO, message=message))


def warn(sink: EventSink, message: str) -> None:
    """Reports something to look at; the run goes on."""
    sink.emit(events_pb2.LogLine(severity=events_pb2.LOG_SEVERITY_WARNING, message=message))
