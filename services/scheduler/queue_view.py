"""The jobs that have not ended, as the loop sees them: read whole once, then brought up to date by what has changed.

What is kept here can be derived again at any moment, and is: at the start, when the order of changes has gone back (a
database that was restored), and now and then. Every write that changes a job stamps it with the number of the change
(`store/changes.py`), whichever process it comes from, and numbers become visible in their order. So a look reads the
jobs above the number that it saw last, and a queue of ten thousand jobs costs a look no more than one of ten.
"""

from __future__ import annotations

from sqlalchemy import Connection

from services.grpckit.logging import get_logger
from services.scheduler.records import ActiveJob
from services.scheduler.store import active, changes

_log = get_logger(__name__)

WHOLE_EVERY_MS = 60_000
"""Longest time for which changes alone are read. 60 s: bounds what a write without a stamp could do."""


class QueueView:
    """The jobs that have not ended. For one look at a time; a look that failed may be made again."""

    def __init__(self) -> None:
        self.broken: active.Broken = {}
        """Jobs whose row could not be read at the newest looks."""
        self._jobs: dict[int, ActiveJob] = {}
        self._ordered: tuple[ActiveJob, ...] = ()
        self._newest = -1
        """The newest change that is in `_jobs`; -1: nothing was read yet."""
        self._whole_ms = 0
        """When everything was read last, by the database's clock."""

    def look(self, connection: Connection, now_ms: int) -> tuple[ActiveJob, ...]:
        """Returns the jobs that have not ended, oldest first, as they are in the snapshot of a connection."""
        newest = changes.newest(connection)
        is_old = not 0 <= now_ms - self._whole_ms < WHOLE_EVERY_MS
        if self._newest < 0 or newest < self._newest or is_old:
            self._read_whole(connection, newest, now_ms)
        elif newest != self._newest:
            self._read_changes(connection, newest)
        return self._ordered

    def _read_whole(self, connection: Connection, newest: int, now_ms: int) -> None:
        found = tuple(active.all_jobs(connection, self.broken))
        if newest == self._newest and found != self._ordered:
            _log.error("jobs were changed without the mark of a change", jobs=_differing(found, self._ordered))
        self._jobs = {job.number: job for job in found}
        self._ordered, self._newest, self._whole_ms = found, newest, now_ms

    def _read_changes(self, connection: Connection, newest: int) -> None:
        changed = active.changed(connection, self._newest, self.broken)
        for job in changed.active:
            self._jobs[job.number] = job
        for number in (*changed.ended, *self.broken):
            self._jobs.pop(number, None)
        # Two processes may commit in another order than they were given numbers.
        self._ordered = tuple(map(self._jobs.__getitem__, sorted(self._jobs)))
        self._newest = newest


def _differing(found: tuple[ActiveJob, ...], known: tuple[ActiveJob, ...]) -> list[str]:
    """Returns names of jobs that are not the same in both, for the log."""
    before, now = ({job.number: job for job in jobs} for jobs in (known, found))
    numbers = sorted(number for number in before | now if before.get(number) != now.get(number))
    return [str((now.get(number) or before[number]).name) for number in numbers[:10]]
