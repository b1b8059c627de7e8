"""What the loop keeps of the queue from look to look, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, update

from services.grpckit.database import Database
from services.scheduler.jobs import JobState
from services.scheduler.queue_view import WHOLE_EVERY_MS, QueueView
from services.scheduler.records import ActiveJob
from services.scheduler.store import changes
from services.scheduler.store import jobs as job_store
from services.scheduler.store.tables import counters, jobs
from services.scheduler.store.transaction import Transaction
from tests.unit.test_scheduler_store import new_job, open_store
from tuneforge.names import JobName


@pytest.fixture
def database(tmp_path: Path, each_database: str) -> Iterator[Database]:
    """A store with three queued jobs."""
    del each_database
    opened = open_store(tmp_path)
    for name in ("a", "b", "c"):
        opened.write_sync(partial(add, name))
    yield opened
    opened.close()


def add(name: str, connection: Connection) -> None:
    """Adds a queued job."""
    job_store.add(Transaction(connection, 1), new_job(JobName("p", name)), None)


def look(database: Database, view: QueueView, now_ms: int = 1) -> tuple[ActiveJob, ...]:
    """Looks once."""
    return database.read_sync(lambda db: view.look(db, now_ms))


def cancel(database: Database, number: int) -> None:
    """Ends a job."""
    step = job_store.Step(to=JobState.CANCELLED, reason="R", message="M")
    assert database.write_sync(lambda db: job_store.advance(Transaction(db, 2), number, step))


def test_an_unchanged_queue_is_not_read_again(database: Database) -> None:
    """A look without a change gives the very same jobs; one with a change only the changed one anew."""
    view = QueueView()
    first = look(database, view)
    assert look(database, view) is first
    cancel(database, first[0].number)
    after = look(database, view)
    assert [job.name.job for job in after] == ["b", "c"]
    assert [job is before for job, before in zip(after, first[1:], strict=True)] == [True, True]


def test_another_view_sees_what_this_one_has_written(database: Database) -> None:
    """Two processes over one database: each sees the other's changes at its next look."""
    ours, theirs = QueueView(), QueueView()
    assert look(database, ours) == look(database, theirs)
    cancel(database, look(database, ours)[1].number)
    assert look(database, theirs) == look(database, ours)


def test_a_database_that_was_restored_is_read_whole(database: Database) -> None:
    """Numbers of changes that have gone back say that what was seen may never have been."""
    view = QueueView()
    seen = look(database, view)

    def restore(connection: Connection) -> None:
        connection.execute(update(counters).where(counters.c.name == "change").values(value=1))
        connection.execute(update(jobs).values(change_seq=1, not_before_ms=7))

    database.write_sync(restore)
    assert [job.not_before_ms for job in look(database, view)] == [7] * len(seen)


def test_a_change_without_a_mark_is_found_in_time(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    """A write that forgot to say so is seen a minute later, and told in the log with the job's name."""
    view = QueueView()
    number = look(database, view)[0].number
    database.write_sync(lambda db: db.execute(update(jobs).where(jobs.c.number == number).values(not_before_ms=9)))
    assert look(database, view, WHOLE_EVERY_MS)[0].not_before_ms == 0
    assert look(database, view, WHOLE_EVERY_MS + 1)[0].not_before_ms == 9
    printed = capsys.readouterr()
    assert "projects/p/jobs/a" in printed.out + printed.err


def test_a_mark_alone_is_enough(database: Database) -> None:
    """What no event tells of is seen when it was marked as a change."""
    view = QueueView()
    number = look(database, view)[0].number

    def change(connection: Connection) -> None:
        connection.execute(update(jobs).where(jobs.c.number == number).values(not_before_ms=9))
        changes.touch(Transaction(connection, 3), [number])

    database.write_sync(change)
    assert look(database, view)[0].not_before_ms == 9
