"""The scheduler's database in memory, with the moments at which its process may die around a transaction."""

from __future__ import annotations

import asyncio
import functools
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pysqlite3
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import StaticPool

from services.grpckit.database import Database, Rank
from services.grpckit.errors import Reason, ServiceError
from services.grpckit.request_memory import TABLE_NAME
from services.scheduler.service import MIGRATIONS, SCHEMA_HEAD
from services.scheduler.store.tables import metadata

T = TypeVar("T")


@functools.cache
def _connection() -> Connection:
    """Returns the one connection of this process: its cache of compiled statements serves every seed."""
    engine = create_engine(
        "sqlite+pysqlite://",
        module=pysqlite3,
        creator=lambda: pysqlite3.connect(":memory:", isolation_level=None, check_same_thread=False),
        poolclass=StaticPool,
    )

    def start(connection: Any) -> None:
        connection.cursor().execute("BEGIN")

    # As a part of the dialect, not as a listener: an engine with listeners looks for some at each statement.
    setattr(engine.dialect, "do_begin", start)  # noqa: B010 - its type has no such assignment
    return engine.connect()


@functools.cache
def _empty() -> Any:
    """Returns an empty database with the newest schema, made by the real migrations."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scheduler.db"
        made = Database(path, migrations=MIGRATIONS, schema_head=SCHEMA_HEAD, service="scheduler")
        made.open()
        made.close()
        empty, file = pysqlite3.connect(":memory:", check_same_thread=False), pysqlite3.connect(str(path))
        file.backup(empty)
        file.close()
        return empty


class Disk:
    """What survives the scheduler's process.

    Args:
        server: A connection to an empty database of a server; None: SQLite in memory.
    """

    def __init__(self, server: Connection | None = None) -> None:
        self.connection = server or _connection()
        if server is None:
            _empty().backup(self.connection.connection.driver_connection)
        else:
            with server.begin():
                names = ", ".join(table.name for table in metadata.sorted_tables)
                server.exec_driver_sql(f"TRUNCATE {names}, {TABLE_NAME} RESTART IDENTITY CASCADE")
        self.is_broken = False
        """Whether every write is refused."""


class MemoryDatabase(Database):
    """One process's way to the disk. Once the process is dead nothing comes back from it.

    Args:
        disk: The disk.
        chance: Source of delays.
        die: Told which moment of a write it is (`before`, `inside`, `after`); returns whether the process dies there.
    """

    def __init__(self, disk: Disk, chance: random.Random, die: Callable[[str], bool]) -> None:
        self._disk = disk
        self._chance = chance
        self._die = die
        self.is_dead = False

    def open(self) -> None:
        """Needs nothing."""

    def close(self) -> None:
        """Needs nothing."""

    async def write(self, run: Callable[[Connection], T], *, rank: Rank = Rank.USUAL, is_unseen: bool = False) -> T:
        """Commits at once, in the order of the calls; the answer may take a while."""
        del rank, is_unseen
        if self.is_dead or self._die("before"):
            await self._never()
        if self._disk.is_broken:
            raise ServiceError(Reason.DATABASE_UNAVAILABLE, "the simulated disk takes no writes")
        connection = self._disk.connection
        transaction = connection.begin()
        try:
            result = run(connection)
            if self._die("inside"):
                transaction.rollback()
            else:
                transaction.commit()
        except BaseException:
            transaction.rollback()
            raise
        if self.is_dead or self._die("after"):
            await self._never()
        await self._delay()
        return result

    async def read(self, run: Callable[[Connection], T]) -> T:
        """Reads one moment between the call and its answer."""
        await self._delay()
        if self.is_dead:
            await self._never()
        with self._disk.connection.begin():
            result = run(self._disk.connection)
        await self._delay()
        return result

    async def _delay(self) -> None:
        late = self._chance.random()
        await asyncio.sleep(0 if late < 0.8 else late * 0.05)

    async def _never(self) -> NoReturn:
        """The process is gone: nobody comes back from here."""
        self.is_dead = True
        await asyncio.get_running_loop().create_future()
        raise AssertionError
