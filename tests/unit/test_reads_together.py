"""Short reads that share a snapshot: each sees what was committed before it asked, and fails alone."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select, text
from sqlalchemy.exc import DBAPIError

from services.grpckit.database import Database
from services.grpckit.database.together import ReadsTogether
from services.scheduler.service import MIGRATIONS, SCHEMA_HEAD
from services.scheduler.store.tables import counters
from tests.support.postgres import postgres_of


@pytest.fixture
def database(tmp_path: Path, each_database: str) -> Any:
    """An open database."""
    del each_database
    opened = Database(
        tmp_path / "scheduler.db",
        migrations=MIGRATIONS,
        schema_head=SCHEMA_HEAD,
        postgres=postgres_of("scheduler", tmp_path),
    )
    opened.open()
    yield opened
    opened.close()


def count(connection: Connection) -> int:
    """Returns how many rows there are."""
    return int(connection.execute(select(func.count()).select_from(counters)).scalar_one())


def add(number: int, connection: Connection) -> None:
    """Adds a row."""
    connection.execute(insert(counters).values(name=f"n{number}", value=1))


def test_reads_see_what_was_committed_before_them(database: Database) -> None:
    """Readers and a writer at once: no reader sees less than was committed when it asked."""

    async def run() -> None:
        together, committed = ReadsTogether(database), 0

        async def writer() -> None:
            nonlocal committed
            for number in range(10):
                await database.write(partial(add, number))
                committed += 1

        async def reader() -> None:
            for _ in range(10):
                before = committed
                assert await together.read(count) >= before

        await asyncio.gather(writer(), *(reader() for _ in range(8)))

    asyncio.run(run())


def test_one_that_fails_fails_alone(database: Database) -> None:
    """An error of one read, also one of the database, is told to that one and to no other."""

    def wrong(_: Connection) -> int:
        raise LookupError("no such thing")

    def broken(connection: Connection) -> int:
        return int(connection.execute(text("SELECT nothing FROM nowhere")).scalar_one())

    async def run() -> None:
        together = ReadsTogether(database)
        reads = (together.read(each) for each in (count, wrong, broken, count))
        first, second, third, last = await asyncio.gather(*reads, return_exceptions=True)
        assert (first, last) == (0, 0)
        assert isinstance(second, LookupError)
        assert isinstance(third, DBAPIError)

    asyncio.run(run())
