"""A training engine without arithmetic, for tests of the node agent: everything around it is the real thing.

It takes the place of `services.trainer.engine.training` inside the fork server that `tests.support.trainer_node`
starts. Steps take `optimization.learning_rate` seconds; `evaluation.prompts` may hold one word that says how it
misbehaves: `hang` (never looks whether it shall stop), `fault` (a failure with a reason), `crash` (an exception),
`exit` (ends its process), `flood` (many log lines).
"""

from __future__ import annotations

import json
import os
import sys
import time
import types
from collections.abc import Callable

from services.trainer.engine.training_task import (
    ArtifactKind,
    EventSink,
    RunResult,
    StopRequest,
    TrainingFault,
    TrainingInputs,
    TrainingResult,
)
from services.trainer.worker import run
from tuneforge.errors import Reason
from tuneforge.manifest import build
from tuneforge.v1 import events_pb2

__all__ = ["BROKEN", "preload", "run", "train"]

BROKEN = "SCRIPTED_ENGINE_BROKEN"
"""Environment variable with which the fork server cannot start."""


def preload() -> None:
    """Puts this engine in the place of the real one, in this process and those that it forks."""
    if os.environ.get(BROKEN):
        raise ImportError("no engine, as the test wants")
    module = types.ModuleType("services.trainer.engine.training")
    module.train = train  # type: ignore[attr-defined]
    sys.modules["services.trainer.engine.training"] = module


def train(task: TrainingInputs, sink: EventSink, stop: Callable[[], StopRequest | None]) -> TrainingResult:
    """Counts steps, saves the count when it is asked to stop, and goes on from a saved count."""
    spec = task.spec
    behaviour = spec.evaluation.prompts[0] if spec.evaluation.prompts else ""
    saved = task.checkpoints / "step.json"
    step = 0
    if saved.exists():
        content = json.loads(saved.read_text())
        step = content["step"]
        sink.emit(events_pb2.ResumedFrom(step=step, attempt=content["attempt"], digest="0" * 64))
    total = spec.optimization.max_steps or 3
    while step < total:
        time.sleep(spec.optimization.learning_rate)  # what stands for the work of a step
        step += 1
        sink.emit(events_pb2.StepMetrics(step=step, total_steps=total, loss=1.0 / step))
        _misbehave(behaviour, sink)
        request = None if behaviour == "hang" else stop()
        if request is StopRequest.CANCEL:
            return TrainingResult(result=RunResult.CANCELLED, step=step)
        if request is StopRequest.CHECKPOINT:
            saved.write_text(json.dumps({"step": step, "attempt": task.attempt}))
            sink.emit(events_pb2.CheckpointSaved(step=step, size_bytes=2, digest="0" * 64))
            return TrainingResult(result=RunResult.INTERRUPTED, step=step)
    task.output.mkdir(parents=True, exist_ok=True)
    (task.output / "adapter_config.json").write_text(json.dumps({"step": step}))
    return TrainingResult(
        result=RunResult.SUCCEEDED,
        step=step,
        artifact=build(task.output),
        artifact_kind=ArtifactKind.ADAPTER,
        metrics={"loss": 1.0 / step},
    )


def _misbehave(behaviour: str, sink: EventSink) -> None:
    if behaviour == "fault":
        raise TrainingFault(Reason.LOSS_NOT_FINITE, "The loss is nan at step 1.", "Lower the learning rate.")
    if behaviour == "crash":
        raise ZeroDivisionError("a secret of the code")
    if behaviour == "exit":
        os._exit(7)
    if behaviour == "flood":
        for _ in range(200):
            sink.emit(events_pb2.LogLine(message="x" * 4000))
