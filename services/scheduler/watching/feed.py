"""The newest changes of all jobs, read once for all who watch many jobs.

A watcher holds a place in the order of changes and nothing else. Here stands each job that has changed lately as it is
after its newest change; who is further behind reads the database. So a slow reader is given the newest state of each
job and costs no memory, and a hundred watchers cost one read.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from services.grpckit import context
from services.grpckit.errors import ServiceError
from services.grpckit.logging import get_logger
from services.scheduler.broadcast import Broadcast
from services.scheduler.ledger import Ledger
from services.scheduler.records import Job
from services.scheduler.store import changes, watched_jobs
from services.scheduler.watching.audience import Audience

JOBS_SHARED = 1024
"""Jobs kept in memory, those that have changed last."""
JOBS_PER_READ = 256

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A job after its newest change."""

    job: Job
    state_change: int
    """The change since which it is in its state, as far as is known here: at most its newest one."""

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands in the order of changes."""
        return self.job.changes.newest, self.job.number


class Feed(Audience):
    """Reads changes for as long as somebody listens.

    Args:
        ledger: The database.
        broadcast: Says when something was changed here.
        pause_s: Least seconds between two reads: what a watcher is later at most, and what bounds the work.
        poll_s: Most seconds between two reads: how late a change of another process is seen.
    """

    def __init__(self, ledger: Ledger, broadcast: Broadcast, *, pause_s: float, poll_s: float) -> None:
        super().__init__()
        self._ledger = ledger
        self._broadcast = broadcast
        self._pause_s = pause_s
        self._poll_s = poll_s
        self._newest: OrderedDict[int, Changed] = OrderedDict()
        self._floor = (0, 0)
        """All jobs whose newest change lies beyond it, up to the head, are in memory."""
        self._reading = asyncio.Lock()
        self._is_cold = True
        self.head = (0, 0)
        """Everything up to here is known."""
        self.generation = 0
        """Grows with each read that brought something."""
        self._told = 0
        """The generation of which the listeners were told: one who comes reads too, and tells nobody."""

    def _begin(self) -> None:
        self._is_cold = True

    async def refresh(self) -> None:
        """Reads what has changed since the last read; after a time without listeners it begins at the newest change."""
        async with self._reading:
            if self._is_cold:
                newest = await self._ledger.read(changes.newest)
                self._newest.clear()
                self.head = self._floor = (newest, _LAST)
                self._is_cold = False
            while True:
                rows = await self._ledger.read(lambda db: watched_jobs.changed_after(db, self.head, JOBS_PER_READ))
                for job in rows:
                    self._take(job)
                if len(rows) < JOBS_PER_READ:
                    return

    def after(self, place: tuple[int, int], limit: int) -> list[Changed] | None:
        """Returns changes beyond a place in their order, at most `limit`; None: it lies too far back for memory."""
        if place < self._floor:
            return None
        found: list[Changed] = []
        for changed in reversed(self._newest.values()):
            if changed.place <= place:
                break
            found.append(changed)
        found.reverse()
        return found[:limit]

    def _take(self, job: Job) -> None:
        place = job.changes.newest, job.number
        if place <= self.head:
            return
        before = self._newest.pop(job.number, None)
        is_same = before is not None and (before.job.state, before.job.is_removed) == (job.state, job.is_removed)
        state_change = before.state_change if before is not None and is_same else job.changes.newest
        self._newest[job.number] = Changed(job=job, state_change=state_change)
        self.head = place
        self.generation += 1
        while len(self._newest) > JOBS_SHARED:
            _, oldest = self._newest.popitem(last=False)
            self._floor = oldest.place

    async def _run(self) -> None:
        event = self._broadcast.any_job
        while True:
            try:
                async with asyncio.timeout(self._poll_s):
                    await event.wait()
            except TimeoutError:
                pass
            event.clear()
            try:
                with context.background("scheduler.feed"):
                    await self.refresh()
            except ServiceError as error:
                _log.info("changes are read later", problem=f"{error.reason}: {error.message}")
            except Exception:  # noqa: BLE001 - one read that fails must not end what all watchers wait for
                _log.error("reading changes failed", exc_info=True)
            if self.generation != self._told or self._broadcast.is_draining:
                self._told = self.generation
                self.wake()
            await asyncio.sleep(self._pause_s)


_LAST = 2**63 - 1
"""Beyond the number of every job."""
