"""Runs of the engine on a tiny model: their inputs, a sink that keeps every report, and stops at a given moment."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from services.modelkit.artifacts import LocalArtifact
from services.trainer.engine.training_task import Payload, StopRequest, TrainingInputs
from tests.support.tiny_model import make_tiny_model, write_rows
from tuneforge.manifest import build
from tuneforge.specs.spec import Checkpointing, ComputeType, LoraMethod, Optimization, TrainingSpec
from tuneforge.v1 import events_pb2

P = TypeVar("P", bound=Payload)

SPEC = TrainingSpec(
    method=LoraMethod(rank=4, dropout=0.1),
    optimization=Optimization(max_steps=9, learning_rate=1e-2, rows_per_step=4),
    checkpointing=Checkpointing(every_steps=2),
    compute=ComputeType.FP32,
    seed=5,
)
"""Nine steps over ten rows: passes end inside, and dropout draws random numbers in each step."""


class Killed(BaseException):
    """The process ends here, with nothing cleaned up."""


@dataclass
class RecordingSink:
    """Keeps every report; raises `Killed` after the step event of `killed_after`."""

    killed_after: int = 0
    payloads: list[Payload] = field(default_factory=list)

    def emit(self, payload: Payload) -> None:
        """Keeps one report."""
        self.payloads.append(payload)
        if isinstance(payload, events_pb2.StepMetrics) and payload.step == self.killed_after:
            raise Killed

    def of(self, kind: type[P]) -> list[P]:
        """Returns the reports of one kind, in order."""
        return [payload for payload in self.payloads if isinstance(payload, kind)]

    @property
    def steps(self) -> list[events_pb2.StepMetrics]:
        """The step events."""
        return self.of(events_pb2.StepMetrics)


def tiny_inputs(folder: Path, spec: TrainingSpec = SPEC, *, rows: int = 10) -> TrainingInputs:
    """Returns the inputs of a first attempt on a tiny model; files are made in `folder` when they are missing."""
    if not (folder / "rows.jsonl").exists():
        make_tiny_model(folder / "base")
        write_rows(folder / "rows.jsonl", rows)
    manifest = build(folder / "base")
    base = LocalArtifact(
        folder=folder / "base", manifest=manifest, kind="model", ref_version="", digest=manifest.digest
    )
    return TrainingInputs(
        spec=spec,
        base=[base],
        train=[folder / "rows.jsonl"],
        checkpoints=folder / "checkpoints",
        attempt=1,
        output=folder / "output",
        threads=1,
    )


def apart(task: TrainingInputs, name: str, *, attempt: int = 1) -> TrainingInputs:
    """Returns the same inputs with checkpoints and output of their own."""
    folder = task.output.parent / name
    return replace(task, checkpoints=folder / "checkpoints", output=folder / "output", attempt=attempt)


def never() -> StopRequest | None:
    """Asks for no stop."""
    return None


def stop_after(sink: RecordingSink, step: int, request: StopRequest) -> Callable[[], StopRequest | None]:
    """Asks for a stop once a step was reported."""
    return lambda: request if any(event.step >= step for event in sink.steps) else None
