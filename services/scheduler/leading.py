"""Several schedulers on one PostgreSQL database: one leads, the others stand by and tell who does.

Who holds the lock of the writer's session leads: nothing is written and no loop runs without it, so nothing is claimed,
published or fenced twice. The lock goes with the session: at once when the process dies, after some seconds when it
hangs. A scheduler that hung and finds another one leading ends itself: what it remembers is old.

One that stands by answers no call of the service, so that whoever knows several addresses never stays at the wrong one.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from services.grpckit import context as calls
from services.grpckit.database import Database
from services.grpckit.errors import Reason, ServiceError
from services.grpckit.logging import get_logger
from services.scheduler.ledger import Ledger
from services.scheduler.store import leaders

WORD_S = 3.0
"""Seconds between two words of the leader to the server, which ends the session of one that says nothing."""
LOOK_S = 0.2
"""Seconds between two tries of one that stands by to get the lead."""

_ANYWHERE = ("0.0.0.0:", "[::]:")
_log = get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Leading:
    """Gets and keeps the lead."""

    database: Database
    ledger: Ledger
    leads: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by the one that leads once it has begun its work."""
    leader: str = ""
    """While it stands by: `host:port` of the one that leads; empty: not known."""

    async def run(self, address: str, begin: Callable[[], Awaitable[None]]) -> None:
        """Runs until it is cancelled.

        Args:
            address: Where this process is called, told to those that stand by.
            begin: Starts what the leader alone does, and sets `leads`; was called already if this one leads.
        """
        with calls.background("scheduler.leading"):
            try:
                if not self.database.is_leading:
                    await self._stand_by()
                    await begin()
                    _log.warning("this scheduler leads now")
                await self._keep(_reachable(address))
                _log.error("another scheduler leads since this one did not answer; it ends, to be started again")
            except Exception:  # noqa: BLE001 - one that has the lock and does nothing is worse than none
                _log.error("this scheduler could not lead; it ends, to be started again", exc_info=True)
        os.kill(os.getpid(), signal.SIGTERM)

    def require(self) -> None:
        """Refuses a call while this process stands by.

        Raises:
            ServiceError: STANDBY, with who leads.
        """
        if not self.leads.is_set():
            who = f"the scheduler at {self.leader}" if self.leader else "another scheduler"
            message = f"{who} leads on this database; this one stands by"
            raise ServiceError(Reason.STANDBY, message, metadata={"leader": self.leader} if self.leader else None)

    async def _keep(self, address: str) -> None:
        while not self.database.is_displaced:
            try:
                await self.ledger.write(lambda tx: leaders.announce(tx.connection, address))
            except ServiceError as error:
                _log.info("the database does not take a word", problem=error.message)
            await asyncio.sleep(WORD_S)

    async def _stand_by(self) -> None:
        _log.warning("another scheduler leads on this database; this one stands by")
        while True:
            try:
                await self._look()
                if await asyncio.to_thread(self.database.try_to_lead):
                    return
            except Exception as error:  # noqa: BLE001 - whatever it is, what comes next is another try
                _log.error("this scheduler cannot take the lead", problem=str(error))
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        leader = await self.ledger.read(leaders.leader)
        if leader not in ("", self.leader):
            _log.info("standing by", leader=leader)
        self.leader = leader


def _reachable(address: str) -> str:
    """Returns an address that means this machine also elsewhere."""
    if address.startswith(_ANYWHERE):
        return f"{socket.gethostname()}:{address.rpartition(':')[2]}"
    return address


class OnlyAtTheLeader:
    """The methods of a servicer, each refused while another scheduler leads.

    Args:
        servicer: Whose methods.
        leading: Says whether this process leads.
        methods: Their names.
    """

    def __init__(self, servicer: object, leading: Leading, methods: Iterable[str]) -> None:
        for name in methods:
            method = getattr(servicer, name)
            wrap = _stream if inspect.isasyncgenfunction(method) else _call
            setattr(self, name, wrap(method, leading))


def _call(method: Callable[..., Awaitable[Any]], leading: Leading) -> Callable[..., Awaitable[Any]]:
    async def call(request: Any, context: Any) -> Any:
        leading.require()
        return await method(request, context)

    return call


def _stream(method: Callable[..., AsyncIterator[Any]], leading: Leading) -> Callable[..., AsyncIterator[Any]]:
    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        leading.require()
        async for message in method(request, context):
            yield message

    return stream
