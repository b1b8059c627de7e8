"""Claims that share a write, and effects that are not begun again from an older look."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from sqlalchemy import update

from services.grpckit.errors import Reason, ServiceError
from services.scheduler.actions import PlaceAttempt
from services.scheduler.broadcast import Broadcast
from services.scheduler.claiming import claim
from services.scheduler.effects import Effects
from services.scheduler.ledger import Ledger
from services.scheduler.settings import Timing
from services.scheduler.store import jobs as job_store
from services.scheduler.store import nodes as node_store
from services.scheduler.store.tables import jobs
from services.scheduler.store.transaction import Transaction
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.unit.test_scheduler_store import NODE, new_job, open_store
from tuneforge.names import JobName

pytestmark = EACH_DATABASE


@on_loop
async def test_one_that_cannot_be_placed_does_not_keep_the_others_from_it(tmp_path: Path) -> None:
    """An estimate that cannot be read fails the write that they share: each is then placed in one of its own."""
    database = open_store(tmp_path)
    ledger = Ledger(database, Broadcast())

    def prepare(tx: Transaction) -> None:
        node_store.register(tx, NODE, 60_000)
        for name in ("a", "b", "c"):
            job_store.add(tx, new_job(JobName("p", name)), None)
        tx.connection.execute(update(jobs).where(jobs.c.number == 2).values(resource_estimate=b"\xff"))

    try:
        await ledger.write(prepare)
        group = [PlaceAttempt(job=number, nodes=("n1",), why="room") for number in (1, 2, 3)]
        parts = await claim(ledger, [*group, PlaceAttempt(job=3, nodes=("gone",), why="room")])
        assert [part.job for part in parts] == [1, 3]
        assert parts[0].token < parts[1].token
        assert await claim(ledger, group[:1]) == [], "it is placed already"
    finally:
        database.close()


@on_loop
async def test_a_database_that_takes_no_writes_is_asked_once_for_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would refuse each of them alone too, after a wait each time, and the next look decides anew."""
    database = open_store(tmp_path)
    ledger, asked = Ledger(database, Broadcast()), []

    async def refuse(*_: object, **__: object) -> None:
        asked.append(1)
        raise ServiceError(Reason.DATABASE_UNAVAILABLE, "the database does not answer")

    monkeypatch.setattr(database, "write", refuse)
    try:
        group = [PlaceAttempt(job=number, nodes=("n1",), why="room") for number in range(1, 17)]
        assert await claim(ledger, group) == []
        assert len(asked) == 1
    finally:
        database.close()


@on_loop
async def test_what_succeeded_since_the_look_is_not_begun_again() -> None:
    """The decision is older than the success; the next look decides anew."""
    effects, runs = Effects(Timing(), random.Random(0), lambda: None), []
    loop = asyncio.get_running_loop()

    async def make() -> None:
        runs.append(loop.time())

    async def decided() -> int:
        effects.run("start", make)
        for _ in range(3):
            await asyncio.sleep(0)
        return len(runs)

    effects.looked = loop.time()
    assert await decided() == 1
    assert await decided() == 1
    effects.looked = loop.time()
    assert await decided() == 2
    effects.done("start")
    assert await decided() == 2
    await effects.close()
