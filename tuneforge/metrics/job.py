"""One job's figures: a fold over its events, and the metrics that stand for it.

Events may come from the scheduler's log, where the job's own changes of state (attempt 0) say how it is, or from one
node's spool, where only the attempt's do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any, Final

from tuneforge.events import (
    AttemptOutcome,
    AttemptResult,
    CheckpointSaved,
    Event,
    Resolved,
    ResumedFrom,
    StateChange,
    StepMetrics,
)
from tuneforge.metrics.exposition import Family, Histogram, Kind, Sample
from tuneforge.telemetry import DeviceMetrics, DeviceSample

DURATION_BOUNDS_S: Final = (1.0, 10.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 86400.0)
SIZE_BOUNDS_BYTES: Final = (1e6, 1e7, 1e8, 1e9, 1e10, 1e11)


class JobStatus(IntEnum):
    """How a job is, as `finetuning_job_status` says it. A cancelled job has no result either: FAILED."""

    PENDING = 0
    RUNNING = 1
    SUCCEEDED = 2
    FAILED = 3
    PAUSED = 4

    @property
    def is_over(self) -> bool:
        """Whether it has ended for good, as far as is known."""
        return self in {JobStatus.SUCCEEDED, JobStatus.FAILED}


_OF_STATE: Final[Mapping[str, JobStatus]] = {
    "RUNNING": JobStatus.RUNNING,
    "PUBLISHING": JobStatus.RUNNING,
    "CANCELLING": JobStatus.RUNNING,
    "PAUSING": JobStatus.RUNNING,
    "PREEMPTING": JobStatus.RUNNING,
    "PAUSED": JobStatus.PAUSED,
    "SUCCEEDED": JobStatus.SUCCEEDED,
    "FAILED": JobStatus.FAILED,
    "CANCELLED": JobStatus.FAILED,
}
_OF_RESULT: Final[Mapping[AttemptResult, JobStatus]] = {
    AttemptResult.SUCCEEDED: JobStatus.SUCCEEDED,
    AttemptResult.INTERRUPTED: JobStatus.PAUSED,
}


@dataclass(frozen=True, slots=True)
class JobLabels:
    """What a job is called in its metrics."""

    job_name: str
    model_id: str
    """Id of its base."""
    method: str
    """`lora`, `qlora` or `full`."""


@dataclass(slots=True)
class JobFigures:
    """One job as its events have told it up to now; `take` them in their order."""

    labels: JobLabels
    status: JobStatus = JobStatus.PENDING
    step: int = 0
    total_steps: int = 0
    epoch: float = 0.0
    total_epochs: float = 0.0
    last: StepMetrics | None = None
    """The newest step."""
    samples_per_second: float | None = None
    devices: dict[int, tuple[DeviceSample, ...]] = field(default_factory=dict)
    """Rank of a node -> its accelerators, while it runs."""
    final_loss: float | None = None
    """Of a run that is known by its end only."""
    checkpoints: int = 0
    checkpoint_sizes: Histogram = field(default_factory=lambda: Histogram(SIZE_BOUNDS_BYTES))
    durations: Histogram = field(default_factory=lambda: Histogram(DURATION_BOUNDS_S))
    _rows_per_step: int = 0
    _began: datetime | None = None
    _has_job_states: bool = False

    @property
    def progress(self) -> float:
        """How far it is, 0 to 100: by steps where their number is known, else by passes."""
        if self.status is JobStatus.SUCCEEDED:
            return 100.0
        if self.total_steps:
            return min(100.0, 100.0 * self.step / self.total_steps)
        return min(100.0, 100.0 * self.epoch / self.total_epochs) if self.total_epochs else 0.0

    def take(self, event: Event) -> None:
        """Takes one event."""
        match event.payload:
            case StepMetrics() as step:
                self._step(step)
            case DeviceMetrics() as sample:
                # A sample that was taken while the run ended comes after its end.
                if not self.status.is_over:
                    self.devices = {**self.devices, event.node_rank: sample.devices}
            case CheckpointSaved() as checkpoint:
                self.checkpoints += 1
                self.checkpoint_sizes.observe(checkpoint.size_bytes)
            case Resolved() as resolved:
                self._rows_per_step = resolved.spec.optimization.rows_per_step
                self.total_epochs = resolved.spec.optimization.epochs or 0.0
            case ResumedFrom() as resumed:
                self.step = resumed.step
            case StateChange() as change if event.attempt == 0:
                self._has_job_states = True
                self._become(_OF_STATE.get(change.to_state, JobStatus.PENDING), event.time)
            case StateChange() as change if not self._has_job_states:
                self._become(_OF_STATE.get(change.to_state, JobStatus.PENDING), event.time)
            case AttemptOutcome() as outcome if not self._has_job_states:
                self._become(_OF_RESULT.get(outcome.result, JobStatus.FAILED), event.time)
            case _:
                pass

    def take_info(self, info: Mapping[str, Any], time: datetime) -> None:
        """Takes the `training_info.json` of a run that has succeeded, which ended at `time`."""
        config, results = info.get("training_config", {}), info.get("results", {})
        self.total_epochs = self.epoch = float(config.get("epochs") or 0.0)
        self.samples_per_second = results.get("train_samples_per_second")
        if isinstance(loss := results.get("train_loss"), int | float):
            self.final_loss = float(loss)
        runtime_s = float(results.get("train_runtime") or 0.0)
        self._began = time - timedelta(seconds=runtime_s)
        self._become(JobStatus.SUCCEEDED, time)

    def lost(self, time: datetime) -> None:
        """Takes that the attempt's process is gone without a word."""
        self._become(JobStatus.FAILED, time)

    def _step(self, step: StepMetrics) -> None:
        self.last, self.step, self.total_steps, self.epoch = step, step.step, step.total_steps, step.epoch
        if self._rows_per_step and step.step_seconds > 0:
            self.samples_per_second = self._rows_per_step / step.step_seconds

    def _become(self, status: JobStatus, time: datetime) -> None:
        if status is self.status:
            return
        if status is JobStatus.RUNNING:
            self._began = self._began or time
        else:
            self.devices = {}
        if status.is_over:
            self.durations.observe(max(0.0, (time - (self._began or time)).total_seconds()))
            self._began = None
        self.status = status


Values = Iterable[tuple[dict[str, str], float | None]]
"""Labels and value; None: there is none."""


def families(jobs: Iterable[JobFigures]) -> list[Family]:
    """Returns the metrics of some jobs, whose names differ; without accelerators theirs have no samples."""
    known = list(jobs)
    simple = [
        _family(name, kind, text, (pair for job in known for pair in values(job)))
        for name, kind, text, values in _SIMPLE
    ]
    histograms = [
        Family(f"finetuning_{name}", "histogram", text, [each for job in known for each in samples(job)])
        for name, text, samples in _HISTOGRAMS
    ]
    return sorted([*simple, *histograms], key=lambda family: family.name)


def _family(name: str, kind: Kind, text: str, values: Values) -> Family:
    full = f"finetuning_{name}"
    return Family(full, kind, text, [Sample(full, labels, value) for labels, value in values if value is not None])


def _whole(job: JobFigures) -> dict[str, str]:
    return {"job_name": job.labels.job_name, "model_id": job.labels.model_id, "method": job.labels.method}


def _short(job: JobFigures) -> dict[str, str]:
    return {"job_name": job.labels.job_name, "model_id": job.labels.model_id}


def _of_job(value: Callable[[JobFigures], float | None]) -> Callable[[JobFigures], Values]:
    return lambda job: [(_short(job), value(job))]


def _of_step(value: Callable[[StepMetrics], float]) -> Callable[[JobFigures], Values]:
    return lambda job: [] if job.last is None else [(_short(job), value(job.last))]


def _of_device(value: Callable[[DeviceSample], float]) -> Callable[[JobFigures], Values]:
    return lambda job: [
        ({"job_name": job.labels.job_name, "gpu_id": _gpu_id(rank, device)}, value(device))
        for rank, devices in job.devices.items()
        for device in devices
    ]


def _gpu_id(rank: int, device: DeviceSample) -> str:
    # The first node's are called as if it were alone, which it nearly always is.
    return f"{rank}-{device.index}" if rank else str(device.index)


def _loss(job: JobFigures) -> Values:
    loss = job.final_loss if job.last is None else job.last.loss
    # One series only: that of the pass before is stale.
    return [] if loss is None else [({**_short(job), "epoch": str(int(job.epoch))}, loss)]


_SIMPLE: Final[tuple[tuple[str, Kind, str, Callable[[JobFigures], Values]], ...]] = (
    (
        "job_status",
        "gauge",
        "0 pending, 1 running, 2 succeeded, 3 failed or cancelled, 4 paused.",
        lambda job: [(_whole(job), job.status)],
    ),
    ("training_epoch", "gauge", "Passes over the rows so far.", _of_job(lambda job: job.epoch)),
    ("training_step", "gauge", "Optimiser steps so far.", _of_job(lambda job: job.step)),
    ("training_progress", "gauge", "How far the training is, 0 to 100.", _of_job(lambda job: job.progress)),
    ("train_loss", "gauge", "Mean loss of the newest step in nats a token, with its pass.", _loss),
    ("learning_rate", "gauge", "Learning rate of the newest step.", _of_step(lambda step: step.learning_rate)),
    ("samples_per_second", "gauge", "Rows a second, newest step.", _of_job(lambda job: job.samples_per_second)),
    ("tokens_per_second", "gauge", "Tokens a second, newest step.", _of_step(lambda step: step.tokens_per_second)),
    (
        "gpu_utilization_percent",
        "gauge",
        "Share of time in which a kernel ran.",
        _of_device(lambda device: device.utilization_percent),
    ),
    ("gpu_memory_used_bytes", "gauge", "Memory in use.", _of_device(lambda device: device.memory_used_bytes)),
    ("gpu_memory_total_bytes", "gauge", "Memory of the device.", _of_device(lambda device: device.memory_total_bytes)),
    ("checkpoints_total", "counter", "Checkpoints saved.", _of_job(lambda job: job.checkpoints)),
)
_HISTOGRAMS: Final[tuple[tuple[str, str, Callable[[JobFigures], list[Sample]]], ...]] = (
    (
        "job_duration_seconds",
        "Time from the begin of the training to its end, however it ended.",
        lambda job: job.durations.samples("finetuning_job_duration_seconds", _whole(job)),
    ),
    (
        "checkpoint_size_bytes",
        "Size of a saved checkpoint.",
        lambda job: job.checkpoint_sizes.samples("finetuning_checkpoint_size_bytes", _short(job)),
    ),
)
