"""Plays the runs of a sweep's trials on a fake node: each reports the values that a test's function gives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.support.fake_trainer import LIVE, FakeTrainer, HeldAttempt
from tuneforge.v1 import events_pb2, nodes_pb2, spec_pb2, types_pb2

Loss = Callable[[spec_pb2.TrainingSpec, int], float]
"""Validation loss of a spec's run after an evaluation, counted from 1; raises ArithmeticError where the run fails."""


@dataclass
class TrialPilot:
    """Runs every attempt that is started, one step and one evaluation after the other, until it is told to stop."""

    trainer: FakeTrainer
    loss: Loss
    evaluations: int = 4
    gate: asyncio.Event | None = None
    """Runs wait for it after each evaluation."""
    free: float = 0.0
    """Learning rate of runs that do not wait for it."""
    running: int = 0
    most_running: int = 0
    steps: dict[str, int] = field(default_factory=dict)
    """Evaluations of each run, by the name of its attempt."""
    specs: list[spec_pb2.TrainingSpec] = field(default_factory=list)
    """What was started, in order."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def fly(self) -> None:
        """Takes up every attempt that is started."""
        taken: set[str] = set()
        while True:
            await self.trainer.until(lambda: set(self.trainer.starts) - taken)
            for name in [name for name in self.trainer.starts if name not in taken]:
                taken.add(name)
                self.specs.append(self.trainer.held[name].request.spec)
                task = asyncio.create_task(self._run(self.trainer.held[name]))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _run(self, attempt: HeldAttempt) -> None:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            end, failure = await self._train(attempt)
        finally:
            self.running -= 1
        await self.trainer.end(attempt, end, failure)

    async def _train(self, attempt: HeldAttempt) -> tuple[nodes_pb2.AttemptState.ValueType, types_pb2.Failure | None]:
        for step in range(1, self.evaluations + 1):
            metrics = events_pb2.StepMetrics(step=step, total_steps=self.evaluations, loss=2.0)
            attempt.status.step = step
            attempt.status.state = nodes_pb2.ATTEMPT_STATE_RUNNING
            await self.trainer.add(attempt, events_pb2.Event(step=metrics))
            try:
                loss = self.loss(attempt.request.spec, step)
            except ArithmeticError as error:
                failure = types_pb2.Failure(message=str(error), fault=types_pb2.FAULT_CLASS_USER, reason=120)  # type: ignore[arg-type]
                return nodes_pb2.ATTEMPT_STATE_FAILED, failure
            self.steps[attempt.request.name] = step
            await self.trainer.add(
                attempt, events_pb2.Event(evaluation=events_pb2.EvaluationMetrics(step=step, loss=loss, rows=1))
            )
            is_free = attempt.request.spec.optimization.learning_rate == self.free
            if self.gate is not None and not is_free and not attempt.stops:
                waits = asyncio.create_task(self.gate.wait())
                stops = asyncio.create_task(self.trainer.until(lambda: attempt.stops))
                await asyncio.wait({waits, stops}, return_when=asyncio.FIRST_COMPLETED)
                for each in (waits, stops):
                    each.cancel()
                await asyncio.gather(waits, stops, return_exceptions=True)
            if attempt.stops and attempt.status.state not in LIVE - {nodes_pb2.ATTEMPT_STATE_STOPPING}:
                is_saving = attempt.stop_modes[-1] == 1  # STOP_MODE_CHECKPOINT
                ended = nodes_pb2.ATTEMPT_STATE_INTERRUPTED if is_saving else nodes_pb2.ATTEMPT_STATE_CANCELLED
                return ended, None
        return nodes_pb2.ATTEMPT_STATE_SUCCEEDED, None


@asynccontextmanager
async def piloted(trainer: FakeTrainer, loss: Loss, **fields: object) -> AsyncIterator[TrialPilot]:
    """Runs trials on a node while the block runs."""
    pilot = TrialPilot(trainer=trainer, loss=loss, **fields)  # type: ignore[arg-type]
    task = asyncio.create_task(pilot.fly())
    try:
        yield pilot
    finally:
        tasks = {task, *pilot._tasks}
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
