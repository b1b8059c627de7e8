"""The doctor finds nothing in a sound database, and finds each broken promise in one that was changed by hand."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from services.scheduler.doctor import compare, examine, snapshot
from services.scheduler.doctor.__main__ import main, read_only
from services.scheduler.jobs import AttemptEnd, AttemptState, JobState, RetryPolicy
from services.scheduler.store import attempts as attempt_store
from services.scheduler.store import jobs as job_store
from services.scheduler.store import nodes as node_store
from services.scheduler.store import outbox, placing
from services.scheduler.store.transaction import Transaction
from services.scheduler.wire.events import Batch
from tests.unit.test_scheduler_store import NODE, REF, new_job, open_store, steps
from tuneforge.names import JobName


def of_attempt(attempt: int, count: int) -> Batch:
    """Returns the first step events of an attempt, as its node sends them."""
    events = steps(1, count).events
    for event in events:
        event.attempt = attempt
    return Batch(events)


def fill(tx: Transaction) -> None:
    """Writes one job that succeeded with its second attempt, one that runs, and one that waits."""
    node_store.register(tx, NODE, 10_000)
    for name in ("done", "runs", "waits"):
        job_store.add(tx, new_job(JobName("p", name)), None)
    for number, end in enumerate((AttemptState.LOST, AttemptState.SUCCEEDED), start=1):
        (attempt,) = placing.place(tx, placing.Placing(job=1, nodes=["n1"], why="there is room"))
        attempt_store.mark_running(tx, attempt)
        attempt_store.keep_events(tx, attempt, of_attempt(number, 3))
        retry = RetryPolicy(first_delay_s=0.0)
        ending = attempt_store.Ending(attempt=attempt, end=AttemptEnd(state=end), retry=retry, jitter=0.0)
        attempt_store.finish(tx, ending)
    (publication,) = outbox.pending(tx.connection)
    outbox.delivered(tx, publication, REF)
    (running,) = placing.place(tx, placing.Placing(job=2, nodes=["n1"], why="there is room"))
    attempt_store.mark_running(tx, running)
    attempt_store.keep_events(tx, running, of_attempt(1, 2))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound database on disk, closed."""
    folder = tmp_path_factory.mktemp("sound")
    database = open_store(folder)
    database.write_sync(lambda connection: fill(Transaction(connection, 1000)))
    database.close()
    return folder / "scheduler.db"


@pytest.fixture
def file(sound: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copy(sound, tmp_path / "scheduler.db"))


def spoil(file: Path, *statements: str) -> None:
    """Changes a database behind the scheduler's back, its triggers gone."""
    connection = sqlite3.connect(file)
    for name in ("jobs_terminal_is_terminal", "jobs_token_grows"):
        connection.execute(f"DROP TRIGGER IF EXISTS {name}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def rules(file: Path) -> set[str]:
    """Returns the names of the promises that a database does not keep."""
    engine = read_only(file)
    with engine.connect() as connection, connection.begin():
        found = {finding.rule for finding in examine(connection)}
    engine.dispose()
    return found


@pytest.mark.parametrize(
    ("rule", "statement"),
    [
        ("log.dense", "DELETE FROM chunks WHERE job = 2 AND first_seq = 2"),
        ("log.dense", "UPDATE jobs SET latest_seq = latest_seq + 1 WHERE number = 3"),
        ("log.readable", "UPDATE chunks SET payload = x'ff' WHERE job = 2 AND first_seq = 1"),
        ("log.record", "UPDATE jobs SET record_head = zeroblob(32) WHERE number = 1"),
        ("log.attempts", "UPDATE attempts SET last_seq = 9 WHERE job = 2"),
        ("state.legal", "UPDATE jobs SET state = 'QUEUED' WHERE number = 2"),
        ("attempt.numbers", "UPDATE jobs SET attempt = 3 WHERE number = 1"),
        ("attempt.one", "UPDATE attempts SET state = 'RUNNING' WHERE job = 1 AND attempt = 1"),
        ("attempt.one", "UPDATE attempts SET state = 'LOST' WHERE job = 2"),
        ("token.grows", "UPDATE attempts SET token = 99 WHERE job = 1 AND attempt = 1"),
        ("token.grows", "UPDATE jobs SET token = 99 WHERE number = 1"),
        ("token.unique", "UPDATE counters SET value = 1"),
        ("result.pending", "INSERT INTO outbox (job, token, payload, create_ms) VALUES (2, 3, x'', 0)"),
        ("result.kept", "UPDATE jobs SET version = NULL WHERE number = 1"),
        ("result.kept", "UPDATE jobs SET version = 'v' WHERE number = 3"),
        ("result.kept", "UPDATE jobs SET failure = x'00' WHERE number = 3"),
        ("time.end", "UPDATE jobs SET end_ms = NULL WHERE number = 1"),
        ("node.slots", "UPDATE attempts SET state = 'RUNNING'"),
        ("node.known", "DELETE FROM nodes"),
        ("time.counted", "UPDATE jobs SET attained_ms = 5 WHERE number = 1"),
        ("time.project", "UPDATE usage SET device_ms = -1"),
    ],
)
def test_each_broken_promise_is_found(file: Path, rule: str, statement: str) -> None:
    """A sound database has no findings; after one change behind the scheduler's back the broken promise is named."""
    assert rules(file) == set()
    spoil(file, statement)
    assert rule in rules(file)


def test_one_success_too_many_is_found(file: Path) -> None:
    """A log that tells of a second success, or of anything after an end, says so."""
    database = open_store(file.parent)

    def succeed_again(tx: Transaction) -> None:
        change = {"PUBLISHING": {"token": 2}, "SUCCEEDED": {}}
        for target, values in change.items():
            step = job_store.Step(to=JobState(target), reason="R", message="M", values=values)
            job_store.advance(tx, 1, step)

    database.close()
    spoil(file, "UPDATE jobs SET state = 'RUNNING' WHERE number = 1")
    database.open()
    database.write_sync(lambda connection: succeed_again(Transaction(connection, 2000)))
    database.close()
    assert {"result.once", "state.final", "state.legal"} <= rules(file)


@pytest.mark.parametrize(
    ("rule", "statements"),
    [
        ("job.kept", ["DELETE FROM chunks WHERE job = 3", "DELETE FROM jobs WHERE number = 3"]),
        ("state.final", ["UPDATE jobs SET state = 'FAILED' WHERE number = 1"]),
        ("token.grows", ["UPDATE jobs SET token = 0 WHERE number = 2"]),
        ("log.grows", ["UPDATE jobs SET latest_seq = 1 WHERE number = 2"]),
    ],
)
def test_what_must_not_change_is_compared(file: Path, rule: str, statements: list[str]) -> None:
    """Two moments of one database are compared: jobs stay, ends are final, tokens and logs grow."""
    moments = []
    for change in ([], statements):
        spoil(file, *change)
        engine = read_only(file)
        with engine.connect() as connection:
            moments.append(snapshot(connection))
        engine.dispose()
    assert compare(moments[0], moments[0]) == []
    assert [finding.rule for finding in compare(*moments)] == [rule]


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (None, 0, "3 jobs, 0 findings"),
        ("UPDATE jobs SET token = 99 WHERE number = 1", 1, "token.grows  projects/p/jobs/done  it has token 99"),
        ("DROP TABLE chunks", 2, "it cannot be read as a scheduler's database of this release: no such table: chunks"),
    ],
)
def test_the_command_says_what_is_wrong(
    file: Path, change: str | None, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Findings are lines and an exit code of 1; what cannot be read is told without a traceback; nothing is written."""
    if change is not None:
        spoil(file, change)
    before = file.read_bytes()
    assert main([str(file)]) == code
    told = capsys.readouterr()
    assert said in told.out + told.err
    assert file.read_bytes() == before


def test_the_command_needs_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A path that is no file is named with what to give in its place."""
    assert main([str(tmp_path / "absent")]) == 2
    assert "absent is no file" in capsys.readouterr().err
