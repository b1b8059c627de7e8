"""The one way to the scheduler's database: writes tell the watchers and the loop once they are on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import TypeVar

from sqlalchemy import Connection

from services.grpckit.database import Database, Rank
from services.grpckit.database.together import ReadsTogether
from services.scheduler.broadcast import Broadcast
from services.scheduler.store.transaction import DatabaseClock, Transaction, database_clock

T = TypeVar("T")


class Ledger:
    """Reads and writes of the scheduler.

    Args:
        database: The open database.
        broadcast: Told of every committed event.
        clock: Gives the database's time; tests give one that they move.
    """

    def __init__(self, database: Database, broadcast: Broadcast, clock: DatabaseClock = database_clock) -> None:
        self._database = database
        self._broadcast = broadcast
        self._clock = clock
        self._together = ReadsTogether(database)
        self._running: set[asyncio.Task[object]] = set()
        self.on_change: Callable[[], None] = lambda: None
        """Called after each write that changed a job's state: the loop looks again."""
        self.on_end: Callable[[Collection[str]], None] = lambda _: None
        """Called after each write that ended jobs, with their names: they need nothing any more."""

    async def write(self, run: Callable[[Transaction], T], *, rank: Rank = Rank.USUAL) -> T:
        """Runs a function in a write transaction; returns after the commit.

        Claims and leases are prompt, and new jobs patient: hundreds may come at once.

        A caller that is cancelled does not cancel the write: what was committed is always told to the watchers.
        """
        task = asyncio.ensure_future(self._write(run, rank))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _write(self, run: Callable[[Transaction], T], rank: Rank) -> T:
        latest: list[Transaction] = []

        def execute(connection: Connection) -> T:
            tx = Transaction(connection, self._clock(connection))
            latest[:] = [tx]
            return run(tx)

        result = await self._database.write(execute, rank=rank)
        tx = latest[0]
        if tx.chunks or tx.ended:
            self._broadcast.publish(tx.chunks, tx.ended)
        if tx.change:
            self._broadcast.any_job.set()
        if tx.turned:  # not after every flush of events: nothing becomes due by a finished step
            self.on_change()
        if tx.ended:
            self.on_end(tx.ended.values())
        return result

    async def read(self, run: Callable[[Connection], T]) -> T:
        """Runs a function on one snapshot of what is committed."""
        return await self._database.read(run)

    async def look(self, run: Callable[[Connection], T]) -> T:
        """Does what `read` does for a function that reads a few rows: those that wait together share a snapshot."""
        return await self._together.read(run)

    async def read_now(self, run: Callable[[Connection, int], T]) -> T:
        """Runs a function on one snapshot, with the database's time."""
        return await self._database.read(lambda connection: run(connection, self._clock(connection)))

    async def settle(self) -> None:
        """Waits for the writes whose callers have gone."""
        while self._running:
            await asyncio.wait(set(self._running))
