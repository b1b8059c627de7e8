"""A database whose writer is held up, so that what a test writes meanwhile waits together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sqlalchemy import Connection

if TYPE_CHECKING:
    from services.grpckit.database import Database


@asynccontextmanager
async def held_up(database: Database) -> AsyncIterator[None]:
    """Keeps the writer in a commit of its own, and lets it go when what the block has begun is queued."""
    running, gate = threading.Event(), threading.Event()

    def hold(_: Connection) -> None:
        running.set()
        gate.wait()

    holding = asyncio.ensure_future(database.write(hold))
    await asyncio.to_thread(running.wait)
    try:
        yield
        await asyncio.sleep(0)
    finally:
        gate.set()
    await holding
