"""Short reads that wait at the same time share one snapshot, as writes share a commit.

A read of one row costs a tenth of what a thread, a connection and a transaction around it do. While one group is read,
those who come wait for the next, and a moment longer; so each still sees everything that was committed before it asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from services.grpckit.database.database import Database

T = TypeVar("T")

READS_TOGETHER = 256
"""Reads of one group at most."""
LONGEST_REST_S = 0.005
"""After a group there is a rest as long as it took, 5 ms at most, in which more come that share the next one."""


@dataclass(frozen=True, slots=True)
class _Read:
    run: Callable[[Connection], Any]
    done: asyncio.Future[Any]


class ReadsTogether:
    """Short reads of one database, for one event loop. Not for reads of many rows: the others wait for them.

    Args:
        database: The database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[_Read] = []
        self._task: asyncio.Task[None] | None = None

    async def read(self, run: Callable[[Connection], T]) -> T:
        """Runs a function on a snapshot of what is committed, with others that wait now.

        Raises:
            ServiceError: `DATABASE_UNAVAILABLE`, or what the function raises.
        """
        mine = _Read(run, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        if self._task is None:
            self._task = asyncio.create_task(self._read_all())
        found: T = await mine.done
        return found

    async def _read_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.sleep(0)  # those who came in the same moment are all here after it
            while self._waiting:
                group, self._waiting = self._waiting[:READS_TOGETHER], self._waiting[READS_TOGETHER:]
                began = loop.time()
                await self._read_group([each for each in group if not each.done.done()])
                await asyncio.sleep(min(LONGEST_REST_S, loop.time() - began))
        finally:
            self._task = None
            for each in self._waiting:  # only where this task was cancelled
                each.done.cancel()

    async def _read_group(self, group: list[_Read]) -> None:
        try:
            outcomes = await self._database.read(lambda connection: [_outcome(connection, each) for each in group])
        except Exception as error:  # noqa: BLE001 - each of those who wait must hear of it
            outcomes = [(None, error)] * len(group)
            if len(group) > 1:  # on a server the error of one read is the end of all in its transaction
                for each in group:
                    await self._read_group([each])
                return
        for each, (value, problem) in zip(group, outcomes, strict=True):
            if each.done.done():
                continue
            if problem is None:
                each.done.set_result(value)
            else:
                each.done.set_exception(problem)


def _outcome(connection: Connection, read: _Read) -> tuple[Any, Exception | None]:
    try:
        return read.run(connection), None
    except DBAPIError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        return None, error
