"""The life of jobs against the real SQLite store: whatever happens in whatever order, the invariants hold."""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, inspect, select, update
from sqlalchemy.exc import DBAPIError

from services.grpckit.database import Database
from services.scheduler.jobs import TERMINAL, TRANSITIONS, AttemptEnd, AttemptState, Failure, JobState, RetryPolicy
from services.scheduler.queue_view import QueueView
from services.scheduler.records import ActiveJob, Attempt, Checkpoint, Needs, NewJob, Origin, Pinned, Ref
from services.scheduler.service import MIGRATIONS, SCHEMA_HEAD
from services.scheduler.store import active, outbox, placing, tables
from services.scheduler.store import attempts as attempt_store
from services.scheduler.store import checkpoints as checkpoint_store
from services.scheduler.store import events as event_store
from services.scheduler.store import jobs as job_store
from services.scheduler.store import nodes as node_store
from services.scheduler.store.transaction import Transaction, database_clock
from services.scheduler.wire.events import Batch, Copied
from tests.support.postgres import postgres_of
from tuneforge.names import JobName
from tuneforge.v1 import events_pb2

REF = Ref(version="projects/p/models/m/versions/1", digest="a" * 64)
NODE = node_store.Registration(node="n1", address="127.0.0.1:1", capacity=b"", labels={}, generation="g", version="")
ENDS = [
    AttemptEnd(state=AttemptState.SUCCEEDED),
    AttemptEnd(state=AttemptState.INTERRUPTED),
    AttemptEnd(state=AttemptState.CANCELLED),
    AttemptEnd(state=AttemptState.LOST),
    AttemptEnd(state=AttemptState.FAILED, failure=Failure(reason="LOSS_NOT_FINITE", message="nan", is_user_fault=True)),
]


def new_job(name: JobName) -> NewJob:
    """Returns an admitted job."""
    return NewJob(
        name=name,
        creator="local",
        labels={},
        spec=b"",
        train=REF,
        validation=None,
        pinned=Pinned(base=REF, inputs=b""),
        depends_on=None,
        architecture_version=REF.version,
        output_model="projects/p/models/m",
        estimate=None,
        needs=Needs(),
        lost_after_ms=1,
        keep_checkpoints=2,
    )


def steps(first: int, count: int) -> Batch:
    """Returns step events numbered from `first` on."""
    return Batch(
        tuple(
            events_pb2.Event(seq=seq, step=events_pb2.StepMetrics(step=seq, total_steps=99))
            for seq in range(first, first + count)
        )
    )


def open_store(folder: Path) -> Database:
    """Returns an open, empty store: on SQLite, or where the running test has its PostgreSQL."""
    database = Database(
        folder / "scheduler.db",
        migrations=MIGRATIONS,
        schema_head=SCHEMA_HEAD,
        postgres=postgres_of("scheduler", folder),
    )
    database.open()
    return database


class Jobs(RuleBasedStateMachine):
    """Anything that can happen to jobs, with the attempts of all times, also the fenced ones."""

    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="jobs-"))
        self.database = open_store(self.folder)
        self.tokens: list[int] = []
        self.states: dict[int, JobState] = {}
        self.sent: dict[int, int] = {}
        self.view = QueueView()

    def teardown(self) -> None:
        """Closes the database."""
        self.database.close()
        shutil.rmtree(self.folder)

    def write(self, run: Any) -> Any:
        """Runs a write."""
        return self.database.write_sync(lambda db: run(Transaction(db, database_clock(db))))

    @initialize()
    def begin(self) -> None:
        """Two jobs wait and a node is there."""
        self.write(lambda tx: node_store.register(tx, NODE, 10_000))
        for name in ("a", "b"):
            self.write(lambda tx, name=name: job_store.add(tx, new_job(JobName("p", name)), None))

    @rule(target=attempts, job=st.integers(1, 2))
    def place(self, job: int) -> Any:
        """The loop places a job, whether it is queued or not."""
        parts = self.write(lambda tx: placing.place(tx, placing.Placing(job=job, nodes=["n1"], why="there is room")))
        if not parts:
            return multiple()
        (placed,) = parts
        self.tokens.append(placed.token)
        self.sent[placed.token] = 0
        return placed

    @rule(attempt=attempts)
    def confirm(self, attempt: Attempt) -> None:
        """A node says that it holds an attempt and that it runs, however late."""
        self.write(lambda tx: attempt_store.confirm(tx, attempt))
        self.write(lambda tx: attempt_store.mark_running(tx, attempt))

    @rule(
        attempt=attempts,
        back=st.integers(0, 3),
        count=st.integers(1, 4),
        ahead=st.integers(0, 1),
        hole=st.none() | st.integers(0, 3),
    )
    def deliver(self, attempt: Attempt, back: int, count: int, ahead: int, hole: int | None) -> None:
        """Events come: repeated ones, new ones, with a hole before them or one among them."""
        mark = self.sent[attempt.token]
        first = max(1, mark + 1 - back + ahead)
        whole = steps(first, count)
        batch = Batch(tuple(event for place, event in enumerate(whole.events) if place != hole))
        with contextlib.suppress(attempt_store.Fenced, attempt_store.SequenceGap):
            kept = self.write(lambda tx: attempt_store.keep_events(tx, attempt, batch))
            told = {event.seq for event in batch.events if event.seq > mark}
            assert told == set(range(mark + 1, kept + 1))  # whatever is kept has no hole
            self.sent[attempt.token] = kept

    @rule(attempt=attempts, end=st.sampled_from(ENDS), times=st.integers(1, 2))
    def finish(self, attempt: Attempt, end: AttemptEnd, times: int) -> None:
        """An attempt ends, perhaps twice, perhaps long after it was fenced."""
        ending = attempt_store.Ending(attempt=attempt, end=end, retry=RetryPolicy(budget=2), jitter=random.random())
        for _ in range(times):
            self.write(lambda tx: attempt_store.finish(tx, ending))

    @rule(job=st.integers(1, 2), wanted=st.sampled_from(list(JobState)))
    def force(self, job: int, wanted: JobState) -> None:
        """Somebody asks for any change of state: only a legal one happens."""
        if wanted in {JobState.STARTING, JobState.PUBLISHING, JobState.RUNNING}:
            return  # these come with an attempt
        self.write(lambda tx: job_store.advance(tx, job, job_store.Step(to=wanted, reason="R", message="M")))

    @rule(job=st.integers(1, 2))
    def publish(self, job: int) -> None:
        """The outbox is delivered, perhaps twice."""
        rows = [row for row in self.database.read_sync(outbox.pending) if row.job == job]
        for row in rows * 2:
            self.write(lambda tx, row=row: outbox.delivered(tx, row, REF))

    @invariant()
    def kept_view_is_a_fresh_one(self) -> None:
        """What the loop keeps from look to look equals what a first look sees."""

        def look(db: Connection) -> tuple[tuple[ActiveJob, ...], list[ActiveJob]]:
            return self.view.look(db, 0), active.all_jobs(db)

        kept, fresh = self.database.read_sync(look)
        assert kept == tuple(fresh)

    @invariant()
    def logs_are_dense(self) -> None:
        """Every job's log has the numbers from 1 on, each once, and the job knows the newest."""
        for number in (1, 2):
            found = self.events(number)
            assert [event.job_seq for event in found] == list(range(1, len(found) + 1))
            row = self.row(number)
            assert row is None or row.latest_seq == len(found)

    @invariant()
    def changes_are_legal(self) -> None:
        """The log tells an unbroken chain of legal changes that ends in the job's state, and terminal is terminal."""
        for number in (1, 2):
            row = self.row(number)
            if row is None:
                continue
            changes = [event.state for event in self.events(number) if event.WhichOneof("payload") == "state"]
            before = ""
            for change in changes:
                assert getattr(change, "from") == before
                assert not before or JobState(change.to) in TRANSITIONS[JobState(before)]
                before = change.to
            assert row.state == before
            known = self.states.get(number)
            assert known not in TERMINAL or known == row.state
            self.states[number] = JobState(row.state)

    @invariant()
    def tokens_grow(self) -> None:
        """Fencing tokens grow strictly over all jobs."""
        assert self.tokens == sorted(set(self.tokens))

    @invariant()
    def events_of_attempts_come_once(self) -> None:
        """Each attempt's events are in the log once, dense from 1, up to its high-water mark."""

        def marks(db: Any) -> list[Any]:
            return list(db.execute(select(tables.attempts)))

        for row in self.database.read_sync(marks):
            assert row.last_seq == self.sent[row.token]
            held = {event.step.step for event in self.events(row.job) if event.WhichOneof("payload") == "step"}
            assert set(range(1, row.last_seq + 1)) <= held

    def events(self, number: int) -> list[events_pb2.Event]:
        """Returns a job's log."""
        query = select(tables.chunks.c.payload).where(tables.chunks.c.job == number).order_by(tables.chunks.c.first_seq)
        payloads = self.database.read_sync(lambda db: [row.payload for row in db.execute(query)])
        return [event for payload in payloads for event in events_pb2.EventBatch.FromString(payload).events]

    def row(self, number: int) -> Any:
        """Returns a job's row."""
        query = select(tables.jobs).where(tables.jobs.c.number == number)
        return self.database.read_sync(lambda db: db.execute(query).one_or_none())


def test_jobs_keep_their_invariants(each_database: str) -> None:
    """Whatever happens to jobs in whatever order, the invariants hold."""
    # Every step is a synced write: few and long examples, the seed is free so that each run looks elsewhere.
    run_state_machine_as_test(
        Jobs,
        settings=settings(
            max_examples=8 if each_database == "sqlite" else 4,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


@pytest.fixture
def database(tmp_path: Path, each_database: str) -> Any:
    """An open, empty store."""
    opened = open_store(tmp_path)
    yield opened
    opened.close()


def test_migrations_make_the_tables_of_the_store(database: Database) -> None:
    """The migrations and the tables that the store queries are the same, column by column."""
    for table in tables.metadata.sorted_tables:
        columns = database.read_sync(partial(_columns, table=table.name))
        assert columns == {each.name: (each.primary_key, bool(each.nullable)) for each in table.columns}


def _columns(connection: Connection, table: str) -> dict[str, tuple[bool, bool]]:
    """Returns for each column of a table whether it is of the primary key, and whether it may be NULL."""
    inspector = inspect(connection)
    keys = inspector.get_pk_constraint(table)["constrained_columns"]
    return {each["name"]: (each["name"] in keys, each["nullable"]) for each in inspector.get_columns(table)}


def test_database_keeps_terminal_states(database: Database) -> None:
    """Even a bare UPDATE cannot take a job out of a terminal state, nor make a token smaller."""

    def prepare(db: Any) -> None:
        tx = Transaction(db, 0)
        job_store.add(tx, new_job(JobName("p", "a")), None)
        job_store.advance(tx, 1, job_store.Step(to=JobState.CANCELLED, reason="R", message="M", values={"token": 5}))

    database.write_sync(prepare)
    bare = [update(tables.jobs).values(state="QUEUED"), update(tables.jobs).values(token=4)]
    for statement in bare:
        with pytest.raises(DBAPIError):
            database.write_sync(partial(Connection.execute, statement=statement))


def test_placements_that_share_a_write_are_told_apart(database: Database) -> None:
    """Each gets a larger token, a gang has one for all its parts, and a job that is not queued any more gets none."""

    def place(db: Any) -> list[Attempt]:
        tx = Transaction(db, 0)
        node_store.register(tx, NODE, 10_000)
        for name in ("a", "b", "c", "d"):
            job_store.add(tx, new_job(JobName("p", name)), None)
        job_store.advance(tx, 2, job_store.Step(to=JobState.CANCELLED, reason="R", message="M"))
        asked = [["n1"], ["n1"], ["n1", "n2"], ["n1"]]
        wanted = [placing.Placing(job=number, nodes=nodes, why="room") for number, nodes in enumerate(asked, start=1)]
        parts = placing.place(tx, *wanted)
        assert placing.place(tx, *wanted) == []
        assert tx.turned == {1, 2, 3, 4}
        return parts

    parts = database.write_sync(place)
    assert [(part.job, part.node, part.node_rank) for part in parts] == [
        (1, "n1", 0), (3, "n1", 0), (3, "n2", 1), (4, "n1", 0),
    ]  # fmt: skip
    tokens = [part.token for part in parts]
    assert tokens[0] < tokens[1] == tokens[2] < tokens[3]
    found = database.read_sync(lambda db: [job_store.load(db, number) for number in (1, 2, 3, 4)])
    assert [job.state for job in found] == [JobState.STARTING, JobState.CANCELLED, JobState.STARTING, JobState.STARTING]
    assert [job.token for job in found] == [tokens[0], 0, tokens[1], tokens[3]]


def test_who_made_the_durable_checkpoint_is_known(database: Database) -> None:
    """Another node may have come further before, without a copy: nothing goes on from there."""

    def run(db: Any) -> list[ActiveJob]:
        tx = Transaction(db, 0)
        node_store.register(tx, NODE, 10_000)
        job_store.add(tx, new_job(JobName("p", "a")), None)
        for attempt, (node, step) in enumerate([("n1", 50), ("n2", 10)], start=1):
            (part,) = placing.place(tx, placing.Placing(job=1, nodes=[node], why="room"))
            assert part.name.attempt == attempt
            made = Checkpoint(step=step, attempt=attempt, node=node, digest="d", size_bytes=1, create_ms=0)
            checkpoint_store.keep_saved(tx, 1, [made])
            job_store.advance(tx, 1, job_store.Step(to=JobState.QUEUED, reason="R", message="M"))
        copied = Copied(step=10, manifest=b"", digest="d", size_bytes=1, time_ms=0)
        checkpoint_store.keep_durable(tx, 1, "n2", 2, [copied])
        origin = Origin(name="projects/p/jobs/a/checkpoints/10", manifest=b"")
        job_store.add(tx, replace(new_job(JobName("p", "v")), origin=origin, verifies=b"v"), None)
        job_store.add(tx, replace(new_job(JobName("p", "branch")), origin=origin), None)
        return active.all_jobs(db)

    found, verification, branch = database.write_sync(run)
    assert (verification.durable_node, branch.durable_node) == ("n2", None)
    assert (found.checkpoint_node, found.durable_node, found.durable_step) == ("n1", "n2", 10)


def test_batch_with_a_hole_is_refused_whole(database: Database) -> None:
    """Several messages of a stream may be one batch: one lost between two others must not be passed over."""

    def place(db: Any) -> Attempt:
        tx = Transaction(db, 0)
        node_store.register(tx, NODE, 10_000)
        job_store.add(tx, new_job(JobName("p", "a")), None)
        (attempt,) = placing.place(tx, placing.Placing(job=1, nodes=["n1"], why="there is room"))
        return attempt

    attempt = database.write_sync(place)

    def keep(*seqs: int) -> int:
        batch = Batch(tuple(event for seq in seqs for event in steps(seq, 1).events))
        return database.write_sync(lambda db: attempt_store.keep_events(Transaction(db, 0), attempt, batch))

    assert keep(1, 2) == 2
    with pytest.raises(attempt_store.SequenceGap, match="after event 3 the node went on with 5"):
        keep(2, 3, 5)
    assert keep(2, 3, 4, 5) == 5


def test_read_tail_begins_inside_a_chunk(database: Database) -> None:
    """A cursor in the middle of a chunk gets that chunk and those behind it."""

    def prepare(db: Any) -> None:
        tx = Transaction(db, 0)
        job_store.add(tx, new_job(JobName("p", "a")), None)
        for _ in range(3):
            event_store.append(tx, 1, steps(1, 10).encode)

    database.write_sync(prepare)
    tail = database.read_sync(lambda db: event_store.read_tail(db, 1, 15, 64))
    assert [(chunk.first_seq, chunk.last_seq) for chunk in tail.chunks] == [(12, 21), (22, 31)]
    assert tail.latest_seq == 31
