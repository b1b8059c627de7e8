"""Jobs that are stored together: the statements of one, and each has its own answer or its own refusal."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, select

from services.grpckit.database import Database
from services.grpckit.errors import Reason, ServiceError
from services.scheduler.broadcast import Broadcast
from services.scheduler.ledger import Ledger
from services.scheduler.queues.limits import Limits
from services.scheduler.store import events as event_store
from services.scheduler.store import queues, tables
from services.scheduler.store.transaction import Transaction
from services.scheduler.storing import TOGETHER, Storing
from services.scheduler.verbs import Call
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.unit.test_scheduler_store import new_job, open_store
from tuneforge.names import JobName
from tuneforge.v1 import jobs_pb2

pytestmark = EACH_DATABASE


@pytest.fixture
def database(tmp_path: Path, each_database: str) -> Iterator[Database]:
    """An open, empty database."""
    del each_database
    opened = open_store(tmp_path)
    yield opened
    opened.close()


def call(request_id: str, body: bytes = b"body", project: str = "p") -> Call:
    """Returns the call of a submit."""
    return Call(actor="local", project=project, method="CreateJob", request_id=request_id, body=body)


async def stored(storing: Storing, *wanted: tuple[str, str]) -> list[Any]:
    """Stores jobs at the same time, given by id and request id; returns names, or what was raised."""
    found = await asyncio.gather(
        *(storing.store(new_job(JobName("p", job)), call(request)) for job, request in wanted), return_exceptions=True
    )
    return [jobs_pb2.Job.FromString(each).name if isinstance(each, bytes) else each for each in found]


def name(job: str) -> str:
    """Returns the whole name of a job."""
    return f"projects/p/jobs/{job}"


async def count(ledger: Ledger) -> int:
    """Returns how many jobs there are."""
    return int(await ledger.read(lambda db: db.execute(select(func.count()).select_from(tables.jobs)).scalar_one()))


@on_loop
async def test_a_group_takes_the_statements_of_one(database: Database) -> None:
    """Each is stored with its labels, its log and its answer all the same."""
    ledger = Ledger(database, Broadcast())
    storing = Storing(ledger)
    assert await stored(storing, ("zero", "z")) == [name("zero")]
    run: list[str] = []

    def ran(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        run.append(statement)

    def listen(tx: Transaction) -> None:
        event.listen(tx.connection, "before_cursor_execute", ran)

    await ledger.write(listen)
    assert await stored(storing, ("first", "r")) == [name("first")]
    alone = _without_old(run)
    run.clear()
    labelled = [replace(new_job(JobName("p", f"j{each}")), labels={"n": str(each)}) for each in range(TOGETHER)]
    answers = await asyncio.gather(*(storing.store(new, call(f"r{at}")) for at, new in enumerate(labelled)))
    assert len(_without_old(run)) == len(alone) + 1, "one more for the labels"
    for at, answer in enumerate(map(jobs_pb2.Job.FromString, answers)):
        assert (answer.name, dict(answer.labels)) == (name(f"j{at}"), {"n": str(at)})
    numbers = await ledger.read(lambda db: list(db.execute(select(tables.jobs.c.number)).scalars()))
    tails = await ledger.read(lambda db: [event_store.read_tail(db, number, 0, 9) for number in numbers])
    assert [(tail.latest_seq, len(tail.chunks)) for tail in tails] == [(1, 1)] * (TOGETHER + 2)


def _without_old(statements: list[str]) -> list[str]:
    """Returns statements but those that forget old requests, once a second, and the mark of a commit."""
    return [each for each in statements if not each.startswith("DELETE") and "tuneforge_writer" not in each]


@on_loop
async def test_jobs_of_all_kinds_share_a_group(database: Database) -> None:
    """One that waits for another's output comes first, one with warnings after one without."""
    ledger = Ledger(database, Broadcast())
    storing = Storing(ledger)
    assert await stored(storing, ("base", "z")) == [name("base")]
    plain = new_job(JobName("p", "plain"))
    warned = replace(plain, name=JobName("p", "warned"), warnings=("one", "two"), ttl_ms=5)
    blocked = replace(
        plain,
        name=JobName("p", "blocked"),
        pinned=None,
        depends_on=JobName("p", "base"),
        waits_for={1: "projects/p/jobs/base"},
    )
    answers = await asyncio.gather(*(storing.store(new, call(str(new.name))) for new in (blocked, plain, warned)))
    found = [jobs_pb2.Job.FromString(answer) for answer in answers]
    assert [each.state for each in found] == [
        jobs_pb2.JOB_STATE_BLOCKED,
        jobs_pb2.JOB_STATE_QUEUED,
        jobs_pb2.JOB_STATE_QUEUED,
    ]
    assert [list(each.warnings) for each in found] == [[], [], ["one", "two"]]
    rows = await ledger.read(lambda db: db.execute(select(tables.jobs).order_by(tables.jobs.c.number)).all())
    assert [(row.depends_on, row.base_version is None, row.ttl_ms, row.latest_seq) for row in rows[1:]] == [
        (1, True, None, 1),
        (None, False, None, 1),
        (None, False, 5, 3),
    ]
    assert len({row.first_change for row in rows[1:]}) == 1, "they were one group"


@on_loop
async def test_one_that_is_refused_is_refused_alone(database: Database) -> None:
    """A name that was given before, or twice at once, and a request id with another body."""
    ledger = Ledger(database, Broadcast())
    storing = Storing(ledger)
    assert await stored(storing, ("old", "r")) == [name("old")]
    found = await stored(storing, ("a", "1"), ("old", "2"), ("twice", "3"), ("twice", "4"), ("b", "5"))
    assert [found[0], found[2], found[4]] == [name("a"), name("twice"), name("b")]
    assert [each.reason for each in found if isinstance(each, ServiceError)] == [Reason.ALREADY_EXISTS] * 2
    first, other, last = await asyncio.gather(
        storing.store(new_job(JobName("p", "c")), call("6")),
        storing.store(new_job(JobName("p", "d")), call("6", b"another")),
        storing.store(new_job(JobName("p", "e")), call("7")),
        return_exceptions=True,
    )
    assert isinstance(first, bytes)
    assert isinstance(other, ServiceError)
    assert other.reason == Reason.REQUEST_ID_REUSED
    assert isinstance(last, bytes)


@on_loop
async def test_the_same_request_has_one_answer(database: Database) -> None:
    """Twice at once, and again later among new ones; without an id each is a new one."""
    ledger = Ledger(database, Broadcast())
    storing = Storing(ledger)
    assert await stored(storing, ("a", "r"), ("b", "r"), ("c", "s")) == [name("a"), name("a"), name("c")]
    assert await stored(storing, ("d", "t"), ("e", "r")) == [name("d"), name("a")]
    assert await stored(storing, ("f", ""), ("g", "")) == [name("f"), name("g")]
    assert await count(ledger) == 5


@on_loop
async def test_a_quota_takes_as_many_as_it_has_room_for(database: Database) -> None:
    """Jobs of other projects are not kept from it."""
    ledger = Ledger(database, Broadcast())
    storing = Storing(ledger)
    await ledger.write(lambda tx: queues.keep(tx, "p", Limits(max_waiting_jobs=3, revision=1)))
    *found, other = await asyncio.gather(
        *(storing.store(new_job(JobName("p", f"j{each}")), call(f"r{each}")) for each in range(5)),
        storing.store(new_job(JobName("q", "j")), call("r0", project="q")),
        return_exceptions=True,
    )
    assert [isinstance(each, bytes) for each in found] == [True] * 3 + [False] * 2
    assert all(each.reason == Reason.QUOTA_EXCEEDED for each in found if isinstance(each, ServiceError))
    assert isinstance(other, bytes)
    assert await count(ledger) == 4


@on_loop
async def test_one_that_is_not_waited_for_keeps_nobody_waiting(database: Database) -> None:
    """It is stored all the same, and so are the next ones."""
    ledger = Ledger(database, Broadcast())
    storing = Storing(ledger)
    left, other = (asyncio.create_task(storing.store(new_job(JobName("p", each)), call(each))) for each in ("a", "b"))
    await asyncio.sleep(0)
    left.cancel()
    assert jobs_pb2.Job.FromString(await other).name == name("b")
    assert await stored(storing, ("c", "c"), ("a", "a")) == [name("c"), name("a")]
    assert await count(ledger) == 3


@on_loop
async def test_a_database_that_takes_no_writes_is_asked_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is told, and the next ones are stored."""
    ledger, asked = Ledger(database, Broadcast()), []
    storing = Storing(ledger)

    async def refuse(*_: object, **__: object) -> None:
        asked.append(1)
        raise ServiceError(Reason.DATABASE_UNAVAILABLE, "the database does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(database, "write", refuse)
        found = await stored(storing, ("a", "1"), ("b", "2"))
    assert [each.reason for each in found] == [Reason.DATABASE_UNAVAILABLE] * 2
    assert len(asked) == 1
    assert await stored(storing, ("a", "1"), ("b", "2")) == [name("a"), name("b")]
