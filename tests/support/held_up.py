"""A database whose writer is held up, so that what a test writes meanwhile waits together."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from sqlalchemy import Connection

if TYPE_CHECKING:
    from services.grpckit.database import Database


async def held_up(database: Database, gate: threading.Event) -> asyncio.Future[None]:
    """Returns a write that runs until the gate is open; it runs already, alone in its commit."""
    running = threading.Event()

    def hold(_: Connection) -> None:
        running.set()
        gate.wait()

    holding = asyncio.ensure_future(database.write(hold))
    await asyncio.to_thread(running.wait)
    return holding
