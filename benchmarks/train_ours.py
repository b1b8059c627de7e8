"""Contestant: the trainer's engine as it runs in a worker, with its event spool on disk and its sampling of devices."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.contestants import Round, Stopwatch, Work, rounds
from services.modelkit.artifacts import LocalArtifact
from services.trainer.engine.training import preload, train
from services.trainer.engine.training_task import Payload, TrainingInputs
from services.trainer.events import EventLog
from services.trainer.sampling import Sampling
from tuneforge.manifest import build
from tuneforge.names import AttemptName
from tuneforge.specs.spec import (
    Checkpointing,
    ComputeType,
    DataConfig,
    FullMethod,
    LearningRateSchedule,
    LoraMethod,
    Optimization,
    TrainingSpec,
)
from tuneforge.v1 import events_pb2

RANK = 16


def spec_of(work: Work) -> TrainingSpec:
    """Returns the job that does some work."""
    return TrainingSpec(
        method=LoraMethod(rank=RANK) if work.adapter else FullMethod(),
        data=DataConfig(max_tokens=2048),
        compute=ComputeType(work.compute),
        optimization=Optimization(
            max_steps=len(work.steps),
            rows_per_step=len(work.steps[0]),
            learning_rate=work.learning_rate,
            schedule=LearningRateSchedule.CONSTANT,
            warmup_ratio=0.0,
        ),
        checkpointing=Checkpointing(every_steps=0),
        seed=work.seed,
    )


class _Timed:
    """The worker's event log, and a stopwatch from the report of the start to that of the last step."""

    def __init__(self, log: EventLog, steps: int) -> None:
        self._log, self._steps = log, steps
        self._watch = Stopwatch()
        self.losses: list[float] = []
        self.grad_norms: list[float] = []
        self.first_cpu_s = 0.0
        self.spent = (0.0, 0.0)

    def emit(self, payload: Payload) -> None:
        """Writes the event."""
        self._log.emit(payload)
        if isinstance(payload, events_pb2.Resolved):
            self._watch.start()
        if isinstance(payload, events_pb2.StepMetrics):
            self.losses.append(payload.loss)
            self.grad_norms.append(payload.grad_norm)
            if payload.step == 1:
                self.first_cpu_s, _ = self._watch.read()
            if payload.step == self._steps:
                self.spent = self._watch.read()


def main(path: str) -> None:
    """Prepares and makes rounds."""
    work = Work.read(path)
    preload()
    folder = Path(work.weights)
    manifest = build(folder)
    base = LocalArtifact(folder=folder, manifest=manifest, kind="model", ref_version="", digest=manifest.digest)

    def make() -> Round:
        with tempfile.TemporaryDirectory() as name:
            log = EventLog(Path(name) / "spool", AttemptName("default", "bench", 1), 0)
            timed = _Timed(log, len(work.steps))
            task = TrainingInputs(
                spec=spec_of(work),
                base=[base],
                train=[Path(work.rows)],
                checkpoints=Path(name) / "checkpoints",
                attempt=1,
                output=Path(name) / "output",
                threads=work.threads,
            )
            with Sampling(log, ()):
                train(task, timed, lambda: None)
            log.close()
        cpu, wall = timed.spent
        return Round(
            cpu_s=cpu,
            first_cpu_s=timed.first_cpu_s,
            wall_s=wall,
            losses=timed.losses,
            grad_norms=timed.grad_norms,
        )

    rounds(make)


if __name__ == "__main__":
    main(*sys.argv[1:])
