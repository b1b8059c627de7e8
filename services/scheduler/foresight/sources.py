"""What each job still needs, out of the database: predictions are read once, the steps of running jobs now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection

from services.scheduler.calibration import Interval
from services.scheduler.foresight.run_times import Facts, RunTime, StepTimes, run_time, step_times
from services.scheduler.jobs import HELD, JobState
from services.scheduler.ledger import Ledger
from services.scheduler.observation import Observation
from services.scheduler.records import ActiveJob
from services.scheduler.store import run_times as store
from services.scheduler.wire.step_times import predicted_seconds, step_seconds

READ_AGAIN_MS = 10_000
"""Age at which the measured steps of a job are read again."""
STEPS_AT_ONCE = 200
"""Jobs whose steps are read for one answer; the others keep what is known of them."""


@dataclass(slots=True)
class RunTimes:
    """Remembers what does not change from one look to the next."""

    ledger: Ledger
    _estimates: dict[int, Interval | None] = field(default_factory=dict)
    _steps: dict[int, tuple[int, int, StepTimes | None]] = field(default_factory=dict)
    """When they were read, after which step, and what they took."""

    async def of(self, seen: Observation) -> dict[int, RunTime]:
        """Returns what each job that has not ended still needs, by number."""
        active = {job.number: job for job in seen.jobs}
        for number in self._estimates.keys() - active.keys():
            del self._estimates[number]
            self._steps.pop(number, None)
        # The prediction of a blocked job comes with its base.
        missing = [
            number for number, job in active.items() if number not in self._estimates or job.state is JobState.BLOCKED
        ]
        stale = [job for job in active.values() if job.step and self._is_stale(job, seen.now_ms)][:STEPS_AT_ONCE]

        def read(connection: Connection) -> tuple[dict[int, Interval | None], dict[int, StepTimes | None], list[float]]:
            stored = store.estimates(connection, missing)
            steps = {job.number: step_times(step_seconds(store.newest_events(connection, job.number))) for job in stale}
            predicted = {number: predicted_seconds(stored.get(number)) for number in missing}
            return predicted, steps, store.finished_seconds(connection)

        # Both with thousands of jobs beside the event loop: the read has a thread of its own, and so has what follows.
        predicted, steps, history = await self.ledger.read(read)
        self._estimates.update(predicted)
        self._steps.update({job.number: (seen.now_ms, job.step, steps[job.number]) for job in stale})
        return await asyncio.to_thread(self._all, seen, history)

    def _all(self, seen: Observation, history: list[float]) -> dict[int, RunTime]:
        begun = {each.job: each.create_ms for each in seen.attempts if each.node_rank == 0}
        return {job.number: run_time(self._facts(job, begun, seen.now_ms), history) for job in seen.jobs}

    def _is_stale(self, job: ActiveJob, now_ms: int) -> bool:
        known = self._steps.get(job.number)
        return known is None or (now_ms - known[0] >= READ_AGAIN_MS and known[1] != job.step)

    def _facts(self, job: ActiveJob, begun: Mapping[int, int], now_ms: int) -> Facts:
        has_node = job.state in HELD
        known = self._steps.get(job.number)
        return Facts(
            step=job.step,
            total_steps=job.total_steps,
            has_node=has_node,
            held_ms=max(0, now_ms - begun[job.number]) if has_node and job.number in begun else 0,
            estimate_s=self._estimates.get(job.number),
            steps=known[2] if known is not None else None,
        )
