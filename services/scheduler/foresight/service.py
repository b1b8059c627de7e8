"""Looks and answers: why a job is where it is, what would become of another one, and what promises were worth.

Runs of the planner take place in a thread, one at a time: the event loop goes on meanwhile, and ten callers who ask at
once share one moment. A loop makes a forecast every few seconds, for the answers of `GetJob` and `ListJobs`, keeps the
first promise of each job, and writes down what became of promises.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from sqlalchemy import Connection

from services.grpckit.logging import get_logger
from services.scheduler.foresight import keeping
from services.scheduler.foresight.explaining import Explanation, Told, View, explain, told_of
from services.scheduler.foresight.forecast import foresee, ordered
from services.scheduler.foresight.moment import moment_of
from services.scheduler.foresight.promises import Event, Outcome, Promise, Quality, Source, quality
from services.scheduler.foresight.run_times import Facts, RunTime, run_time
from services.scheduler.foresight.simulating import Simulated, as_stored, simulate
from services.scheduler.foresight.sources import RunTimes
from services.scheduler.jobs import TERMINAL
from services.scheduler.ledger import Ledger
from services.scheduler.observation import Observation
from services.scheduler.planning.plan import plan
from services.scheduler.records import Job, NewJob
from services.scheduler.store import forecasts as store
from services.scheduler.store.run_times import finished_seconds
from services.scheduler.store.transaction import Transaction
from services.scheduler.wire import spec_digest
from services.scheduler.wire.step_times import predicted_seconds

_log = get_logger(__name__)

EVERY_S = 5.0
"""Shortest pause between two forecasts of the loop."""
SHARE = 0.04
"""Largest share of the time that the loop spends on forecasts: with a long queue it looks less often."""
FRESH_S = 1.0
"""Age up to which a view is shared by callers while nothing changes."""
LONG = 500
"""Jobs from which on a view is dear: then callers share one for three times as long as it took, whatever changes."""
EXPLAINED_EVERY_MS = 300_000
"""At most one promise of an explanation is kept for a job in this time."""
FIRST_AT_ONCE = 500
"""First promises that are kept in one go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """When a view was made, how long that took, how many changes there had been before, and of how many jobs it is."""

    at: float
    took_s: float
    changes: int
    jobs: int


@dataclass(slots=True, kw_only=True)
class Foresight:
    """The scheduler's foresight."""

    ledger: Ledger
    look: Callable[[], Awaitable[Observation]]
    """Gives a fresh observation."""
    last: Callable[[], Observation | None]
    """Gives the loop's last one, some moments old; None: it has not looked yet."""
    changes: Callable[[], int]
    """Counts what has changed."""
    latest: dict[int, Told] = field(default_factory=dict)
    """The loop's newest forecast, by number of the job."""
    qualities: dict[Event, Quality] = field(default_factory=dict)
    outcomes: dict[tuple[Event, Outcome], int] = field(default_factory=dict)
    """Promises that are kept, by event and outcome."""
    _times: RunTimes = field(init=False)
    _busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    _view: tuple[_Made, View] | None = None
    _explained: dict[int, int] = field(default_factory=dict)
    """When the last promise of an explanation was kept, by job."""
    _first: set[int] = field(default_factory=set)
    """Jobs that were promised something already."""

    def __post_init__(self) -> None:
        self._times = RunTimes(self.ledger)

    async def explain(self, job: Job) -> tuple[Explanation, View]:
        """Returns why a job is in its state and what comes next, and the moment that was looked at."""
        view = await self.view(job if job.state not in TERMINAL else None)
        found = await asyncio.to_thread(explain, job, view)
        last_ms = self._explained.get(job.number)
        now_ms = view.moment.queue.now_ms
        if found.told is not None and (last_ms is None or now_ms - last_ms >= EXPLAINED_EVERY_MS):
            self._explained[job.number] = now_ms
            outlook = view.outlooks.of(job.number)
            await self._keep(
                keeping.promises_of(
                    outlook,
                    now_ms,
                    self.qualities,
                    job=job.number,
                    project=job.name.project,
                    source=Source.EXPLANATION,
                )
            )
        return found, view

    async def simulate(self, new: NewJob) -> tuple[Simulated, View]:
        """Returns what would become of a job that was admitted, and the moment without it."""
        view = await self.view(None)
        history = await self.ledger.read(finished_seconds)
        needed = run_time(Facts(estimate_s=predicted_seconds(new.resource_estimate)), history)
        number = max((job.number for job in view.moment.seen.jobs), default=0) + 1
        now_ms = view.moment.queue.now_ms
        job = as_stored(new, number, now_ms, view.moment)
        async with self._busy:
            found = await asyncio.to_thread(simulate, job, needed, view, self.qualities)
        project = new.name.project
        await self._keep(
            keeping.promises_of(
                found.raw.of(number),
                now_ms,
                self.qualities,
                job=None,
                project=project,
                source=Source.SIMULATION,
                digest=spec_digest(new.spec),
            )
        )
        return found, view

    async def view(self, job: Job | None) -> View:
        """Returns this moment with a forecast for all jobs; callers who come at once share one.

        Args:
            job: A job that the view has to know in its state; None: any view that is fresh.
        """
        async with self._busy:
            if self._view is not None and self._is_fresh(self._view[0]):
                view = self._view[1]
                known = view.moment.jobs.get(job.number) if job is not None else None
                if job is None or (known is not None and known.state is job.state):
                    return view
            changes = self.changes()
            last = self.last()
            is_known = last is not None and (job is None or any(each.number == job.number for each in last.jobs))
            # With a long queue a look of its own takes longer than all the rest of an answer.
            seen = last if last is not None and is_known and len(last.jobs) >= LONG else await self.look()
            began = time.monotonic()
            times = await self._times.of(seen)
            view = await asyncio.to_thread(_viewed, seen, times, dict(self.qualities))
            now = time.monotonic()
            self._view = _Made(at=now, took_s=now - began, changes=changes, jobs=len(seen.jobs)), view
            return view

    def _is_fresh(self, made: _Made) -> bool:
        age_s = time.monotonic() - made.at
        is_shared = made.jobs >= LONG and age_s < 3 * made.took_s
        return is_shared or (age_s < FRESH_S and made.changes == self.changes())

    async def run(self) -> None:
        """Makes forecasts until it is cancelled. A round that fails is logged, and the next one begins anew."""
        while True:
            began = time.monotonic()
            try:
                await self.round()
            except Exception:  # noqa: BLE001 - a round that fails must not end the loop
                _log.error("a round of forecasts failed", exc_info=True)
            took_s = time.monotonic() - began
            await asyncio.sleep(max(EVERY_S, took_s / SHARE))

    async def round(self) -> None:
        """Settles promises, makes a forecast of all jobs, and keeps the first promise of those that have none."""
        view = await self.view(None)
        now_ms = view.moment.queue.now_ms
        await self._settle(now_ms)
        self.latest = await asyncio.to_thread(_told, view)
        active = view.moment.jobs
        self._first &= active.keys()
        for number in self._explained.keys() - active.keys():
            del self._explained[number]
        fresh = [number for number in active if number not in self._first and number in view.outlooks.by_job]
        fresh = fresh[:FIRST_AT_ONCE]
        self._first.update(fresh)
        known = await self.ledger.read(lambda db: store.with_first(db, fresh))
        promises: list[Promise] = []
        for number in fresh:
            if number not in known:
                outlook = view.outlooks.of(number)
                promises += keeping.promises_of(
                    outlook,
                    now_ms,
                    self.qualities,
                    job=number,
                    project=active[number].name.project,
                    source=Source.CREATION,
                )
        await self._keep(promises)

    async def _keep(self, promises: list[Promise]) -> None:
        if promises:
            await self.ledger.write(lambda tx: store.add(tx, promises))

    async def _settle(self, now_ms: int) -> None:
        """Writes what became of open promises, and reads anew what promises are worth."""

        def read(connection: Connection) -> tuple[list[Promise], dict[int, store.Reality], dict[int, int]]:
            promises = store.unsettled(connection)
            found = keeping.adopted(promises, store.created_since(connection, promises))
            numbers = {each.job for each in promises if each.job is not None}
            return promises, store.realities(connection, numbers), found

        promises, realities, found = await self.ledger.read(read)
        outcomes = keeping.settled([each for each in promises if each.id not in found], realities, now_ms)
        if outcomes or found:

            def write(tx: Transaction) -> None:
                store.attach(tx, found)
                store.settle(tx, outcomes)

            await self.ledger.write(write)
        self.qualities, self.outcomes = await self.ledger.read(lambda db: _worth(db, now_ms))


def _worth(connection: Connection, now_ms: int) -> tuple[dict[Event, Quality], dict[tuple[Event, Outcome], int]]:
    found = {event: quality(store.decided(connection, event), now_ms) for event in Event}
    return found, store.counts(connection)


def _viewed(seen: Observation, times: dict[int, RunTime], qualities: dict[Event, Quality]) -> View:
    moment = moment_of(seen, times)
    return View(
        moment=moment,
        decisions=plan(moment.queue),
        order=ordered(moment.queue),
        outlooks=foresee(moment.situation, times, pace=moment.pace),
        qualities=qualities,
    )


def _told(view: View) -> dict[int, Told]:
    return {number: found for number in view.moment.jobs if (found := told_of(number, view)) is not None}
