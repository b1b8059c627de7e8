"""What a watcher knows of a job so far: a fold over its events, without a word about how it is shown."""

from dataclasses import dataclass, field
from datetime import datetime

from tuneforge.events import (
    CheckpointSaved,
    DeviceMetrics,
    EvaluationMetrics,
    Event,
    Resolved,
    ResumedFrom,
    StateChange,
    StepMetrics,
)
from tuneforge.job_values import Job

_MOST_POINTS = 8192
"""Far more than a terminal has columns of dots; above it every other point goes."""


@dataclass
class Progress:
    """One job as its events have told it up to now."""

    name: str = ""
    state: str = ""
    attempt: int = 0
    step: int = 0
    total_steps: int = 0
    total_epochs: float | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    last: StepMetrics | None = None
    evaluation: EvaluationMetrics | None = None
    device: DeviceMetrics | None = None
    checkpoint: CheckpointSaved | None = None
    losses: list[tuple[float, float]] = field(default_factory=list)
    """(step, loss): one point a step, that of the newest attempt."""
    broken: str = ""
    """Why nothing is heard at the moment; empty while the stream is open."""
    broken_since: datetime | None = None
    """Since when."""

    def breaks(self, why: str, now: datetime) -> None:
        """Takes that the stream broke; the time counts from the first of several breaks."""
        self.broken_since = self.broken_since if self.broken and self.broken_since else now
        self.broken = why

    def snapshot(self, job: Job) -> None:
        """Takes what the job was when the stream was opened; the events that follow may be older."""
        self.name = job.name
        self.broken = ""
        self.state = self.state or job.state
        self.total_steps = self.total_steps or job.total_steps
        self.total_epochs = job.spec.optimization.epochs
        self.start_time = self.start_time or job.start_time

    def take(self, event: Event) -> None:
        """Takes one event."""
        self.broken = ""
        self.attempt = max(self.attempt, event.attempt)
        match event.payload:
            case StepMetrics() as step:
                self._step(step)
            case EvaluationMetrics() as evaluation:
                self.evaluation = evaluation
            case DeviceMetrics() as device:
                self.device = device
            case CheckpointSaved() as checkpoint:
                self.checkpoint = checkpoint
            case StateChange() as change if event.attempt == 0:
                self._change(change, event.time)
            case ResumedFrom() as resumed:
                self.step = resumed.step
                self.losses = [point for point in self.losses if point[0] <= resumed.step]
            case Resolved() as resolved:
                self.total_epochs = resolved.spec.optimization.epochs
            case _:
                pass

    def _change(self, change: StateChange, time: datetime) -> None:
        self.state = change.to_state
        if change.to_state == "RUNNING":
            self.start_time = self.start_time or time
        elif change.to_state in {"SUCCEEDED", "FAILED", "CANCELLED"}:
            self.end_time = time
        if change.to_state != "RUNNING":
            self.device = None

    def _step(self, step: StepMetrics) -> None:
        if self.losses and step.step <= self.losses[-1][0]:  # an attempt that began again from nothing
            self.losses = [point for point in self.losses if point[0] < step.step]
        self.last, self.step, self.total_steps = step, step.step, step.total_steps
        self.losses.append((step.step, step.loss))
        if len(self.losses) > _MOST_POINTS:
            del self.losses[1::2]
