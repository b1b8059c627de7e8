"""Several schedulers on one PostgreSQL database: one leads, the others stand by and answer reads and watches.

Who holds the lock of the writer's session leads: nothing is written and no loop runs without it, so nothing is claimed,
published or fenced twice. The lock goes with the session: at once when the process dies, after some seconds when it
hangs. A scheduler that hung and finds another one leading ends itself: what it remembers is old.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from services.grpckit import context as calls
from services.grpckit.auth import Policy
from services.grpckit.database import Database
from services.grpckit.errors import Reason, ServiceError
from services.grpckit.logging import get_logger
from services.scheduler.broadcast import Broadcast
from services.scheduler.jobs import TERMINAL
from services.scheduler.ledger import Ledger
from services.scheduler.store import changes
from services.scheduler.store.tables import jobs

WORD_S = 3.0
"""Seconds between two words of the leader to the server, which ends the session of one that says nothing."""
LOOK_S = 0.2
"""Seconds between two looks of one that stands by for what the leader has written, and for the lead."""

_log = get_logger(__name__)
_ENDED = {str(state) for state in TERMINAL}


@dataclass(slots=True, kw_only=True)
class Leading:
    """Gets and keeps the lead."""

    database: Database
    ledger: Ledger
    broadcast: Broadcast
    begin: Callable[[], Awaitable[None]]
    """Starts what the leader alone does."""
    _seen: int = 0

    async def run(self) -> None:
        """Runs until it is cancelled."""
        with calls.background("scheduler.leading"):
            if not self.database.is_leading:
                _log.warning("another scheduler leads on this database; this one answers reads and stands by")
                await self._stand_by()
                _log.warning("this scheduler leads now")
                await self.begin()
            while not self.database.is_displaced:
                try:
                    await self.ledger.write(lambda tx: tx.now_ms)
                except ServiceError as error:
                    _log.info("the database does not take a word", problem=error.message)
                await asyncio.sleep(WORD_S)
        _log.error("another scheduler leads since this one did not answer; it ends itself, to be started again")
        os.kill(os.getpid(), signal.SIGTERM)

    async def _stand_by(self) -> None:
        trying = asyncio.create_task(asyncio.to_thread(self.database.try_to_lead))
        while True:
            try:
                await self._tell_watchers()
            except ServiceError as error:
                _log.info("changes are read later", problem=error.message)
            if trying.done():
                try:
                    if trying.result():
                        return
                except Exception as error:  # noqa: BLE001 - whatever it is, what comes next is another try
                    _log.error("this scheduler cannot take the lead", problem=str(error))
                trying = asyncio.create_task(asyncio.to_thread(self.database.try_to_lead))
            await asyncio.sleep(LOOK_S)

    async def _tell_watchers(self) -> None:
        """Wakes the watchers here for what the leader has committed; they read it from the database."""
        newest = await self.ledger.read(changes.newest)
        if newest == self._seen:
            return
        query = select(jobs.c.number, jobs.c.latest_seq, jobs.c.state).where(jobs.c.change_seq > self._seen)
        if self.broadcast.watchers:
            for row in await self.ledger.read(lambda db: db.execute(query).all()):
                self.broadcast.wake_behind(row.number, row.latest_seq, is_ended=row.state in _ENDED)
        self._seen = newest
        self.broadcast.any_job.set()


class ChangesAtTheLeader:
    """The methods of a servicer: those that only read as they are, the others refused while another scheduler leads.

    Args:
        servicer: Whose methods.
        database: Says whether this process leads.
        policies: Says which methods only read.
    """

    def __init__(self, servicer: object, database: Database, policies: Mapping[str, Policy]) -> None:
        for name, policy in policies.items():
            method = getattr(servicer, name)
            if not policy.permission.endswith(".read"):
                method = _stream(method, database) if inspect.isasyncgenfunction(method) else _call(method, database)
            setattr(self, name, method)


def _require_lead(database: Database) -> None:
    if not database.is_leading:
        raise ServiceError(Reason.STANDBY, "another scheduler leads on this database; this one only reads")


def _call(method: Callable[..., Awaitable[Any]], database: Database) -> Callable[..., Awaitable[Any]]:
    async def call(request: Any, context: Any) -> Any:
        _require_lead(database)
        return await method(request, context)

    return call


def _stream(method: Callable[..., AsyncIterator[Any]], database: Database) -> Callable[..., AsyncIterator[Any]]:
    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        _require_lead(database)
        async for message in method(request, context):
            yield message

    return stream
