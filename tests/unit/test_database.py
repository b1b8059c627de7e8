"""The database: what is acknowledged is on disk, and who may not open it is told why."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pysqlite3
import pytest
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from services.grpckit.database import (
    Database,
    FolderLocked,
    PostgresAddress,
    Rank,
    SchemaTooNew,
    StartRefused,
    sqlite,
    writer,
)
from services.grpckit.database.writer import LONGEST_RUN_S, PATIENT_PER_COMMIT, PROMPT_RUN_S, USUAL_PER_COMMIT
from services.grpckit.errors import Reason, ServiceError
from tests.support.held_up import held_up
from tests.support.postgres import TestDatabases

FIRST_REVISION = '''
"""One table."""
import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table("notes", sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.String))
'''
SECOND_REVISION = '''
"""One column more."""
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("notes", sa.Column("author", sa.String))
'''


@dataclass(frozen=True, slots=True)
class Place:
    """Where the running test has its database, and its migrations."""

    path: Path
    migrations: Path
    postgres: PostgresAddress | None

    def database(self, head: str = "0001", service: str = "notes") -> Database:
        """Returns the database, not yet open."""
        return Database(
            self.path, migrations=self.migrations, schema_head=head, service=service, postgres=self.postgres
        )

    @property
    def source(self) -> str:
        """The same in Python, for a program of its own."""
        url = self.postgres and f"PostgresAddress(url=make_url({str(self.postgres.url)!r}))"
        return (
            "import sys; from pathlib import Path\n"
            "from sqlalchemy import text; from sqlalchemy.engine import make_url\n"
            "from services.grpckit.database import *\n"
            f"database = Database(Path({str(self.path)!r}), migrations=Path({str(self.migrations)!r}), "
            f"schema_head='0001', service='notes', postgres={url})\n"
        )


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    """Gives a migrations folder with one revision."""
    folder = tmp_path / "migrations"
    (folder / "versions").mkdir(parents=True)
    (folder / "versions" / "r0001.py").write_text(FIRST_REVISION)
    return folder


@pytest.fixture
def place(tmp_path: Path, migrations: Path, each_database: str, request: pytest.FixtureRequest) -> Place:
    """Gives an empty place: the test runs once for each kind of database."""
    postgres = None
    if each_database == "postgres":
        databases: TestDatabases = request.getfixturevalue("postgres_databases")
        postgres = databases.empty()
    return Place(tmp_path / "data" / "notes.sqlite", migrations, postgres)


@pytest.fixture
def file(tmp_path: Path, migrations: Path) -> Place:
    """Gives an empty place on SQLite, for what is special to it."""
    return Place(tmp_path / "data" / "notes.sqlite", migrations, None)


@pytest.fixture
def database(place: Place) -> Iterator[Database]:
    """Gives an open database with one table."""
    database = place.database()
    database.open()
    yield database
    database.close()


def _insert(note_id: int) -> Callable[[Connection], int]:
    def run(connection: Connection) -> int:
        connection.execute(text("INSERT INTO notes (id, text) VALUES (:id, 'x')"), {"id": note_id})
        return note_id

    return run


def _columns(connection: Connection) -> list[str]:
    return [column["name"] for column in inspect(connection).get_columns("notes")]


def _count(connection: Connection) -> int:
    return int(connection.execute(text("SELECT count(*) FROM notes")).scalar_one())


def test_a_write_is_seen_by_the_next_read(database: Database) -> None:
    """Once a write returned, readers see it."""
    assert database.write_sync(_insert(7)) == 7
    assert database.read_sync(_count) == 1


def test_sqlite_syncs_each_commit_and_keeps_foreign_keys(file: Place) -> None:
    """The writer's connection runs in WAL with a full sync at each commit."""
    database = file.database()
    database.open()

    def pragmas(connection: Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "query_only")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names]

    assert database.write_sync(pragmas) == ["wal", 2, 1, 0]
    assert database.read_sync(pragmas) == ["wal", 2, 1, 1]
    database.close()


def test_sqlite_prepares_a_statement_once_however_many_came_before(file: Place) -> None:
    """The driver keeps some of the first statements by default, such as those of the migrations, and no later one."""
    database = file.database()
    database.open()
    prepared: list[object] = []

    def allow(*what: object) -> int:
        prepared.append(what)
        return 0

    def run(connection: Connection) -> None:
        driver = connection.connection.driver_connection
        assert driver is not None
        for number in range(200):
            connection.exec_driver_sql(f"SELECT text FROM notes WHERE id = {number}").all()
        driver.set_authorizer(allow)  # asked at each preparation; once more after it was set
        for _ in range(5):
            connection.exec_driver_sql("INSERT INTO notes (text) VALUES ('one')")
            connection.exec_driver_sql("INSERT INTO notes (text) VALUES ('other')")
        driver.set_authorizer(None)

    database.write_sync(run)
    database.close()
    assert len(prepared) <= 2


def test_a_failed_write_undoes_itself_and_not_its_neighbours(database: Database) -> None:
    """Of writes that share one commit, the one that fails is undone whole and the others stay."""

    def two_notes_then_fail(connection: Connection) -> None:
        _insert(100)(connection)
        _insert(1)(connection)

    async def all_at_once() -> list[object]:
        async with held_up(database):
            others = [database.write(_insert(1)), database.write(two_notes_then_fail), database.write(_insert(2))]
            pending = asyncio.gather(*others, return_exceptions=True)
        return list(await pending)

    outcomes = asyncio.run(all_at_once())
    assert outcomes[0] == 1
    assert isinstance(outcomes[1], IntegrityError)
    assert outcomes[2] == 2
    assert database.read_sync(_count) == 2


def test_writes_that_wait_share_a_commit(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred writes queued behind one transaction take one more transaction, not a hundred."""
    monkeypatch.setattr(writer, "LONGEST_RUN_S", math.inf)  # on a slow machine a hundred would be cut for their time

    async def burst() -> None:
        async with held_up(database):
            pending = asyncio.gather(*(database.write(_insert(n)) for n in range(100)))
        await pending

    before = database.commits
    asyncio.run(burst())
    assert database.commits - before <= 2
    assert database.read_sync(_count) == 100


def test_patient_writes_let_others_go_first_and_come_all_the_same(database: Database) -> None:
    """What comes behind forty patient writes goes before them; a slow commit goes without the last ones."""
    order: list[int] = []

    def note(number: int) -> Callable[[Connection], int]:
        def run(connection: Connection) -> int:
            order.append(number)
            until = time.thread_time() + (LONGEST_RUN_S / 10 if number < 40 else 0.0)
            while time.thread_time() < until:
                pass
            return _insert(number)(connection)

        return run

    async def burst() -> None:
        async with held_up(database):
            pending = asyncio.gather(
                *(database.write(note(number), rank=Rank.PATIENT) for number in range(40)),
                database.write(note(40), rank=Rank.PROMPT),
            )
        assert await pending == list(range(41))

    before = database.commits
    asyncio.run(burst())
    assert order.index(40) == 0
    assert [number for number in order if number < 40] == list(range(40))
    assert database.commits - before > 2
    assert database.read_sync(_count) == 41


def test_a_prompt_write_that_comes_during_a_commit_ends_it_early(database: Database) -> None:
    """It waits for the few patient ones that a commit takes in any case, not for all that fit into it."""
    order: list[int] = []

    async def burst() -> None:
        loop, asked = asyncio.get_running_loop(), threading.Event()
        prompt: list[asyncio.Future[int]] = []

        def ask() -> None:
            prompt.append(asyncio.ensure_future(database.write(note(40), rank=Rank.PROMPT)))
            loop.call_soon(asked.set)

        def note(number: int) -> Callable[[Connection], int]:
            def run(connection: Connection) -> int:
                if number == 0:
                    loop.call_soon_threadsafe(ask)
                    assert asked.wait(60.0)
                order.append(number)
                return _insert(number)(connection)

            return run

        async with held_up(database):
            pending = asyncio.gather(*(database.write(note(number), rank=Rank.PATIENT) for number in range(40)))
        assert await pending == list(range(40))
        assert await prompt[0] == 40

    asyncio.run(burst())
    assert order.index(40) == PATIENT_PER_COMMIT


def test_a_commit_with_a_prompt_write_takes_few_others(database: Database) -> None:
    """Whoever waits for the prompt one waits for the end of the commit."""
    commits: dict[int, int] = {}

    def note(number: int) -> Callable[[Connection], int]:
        def run(connection: Connection) -> int:
            commits[number] = database.commits
            until = time.thread_time() + (PROMPT_RUN_S / USUAL_PER_COMMIT if number else 0.0)
            while time.thread_time() < until:
                pass
            return _insert(number)(connection)

        return run

    async def burst() -> None:
        async with held_up(database):
            pending = asyncio.gather(
                *(database.write(note(number)) for number in range(1, 9)), database.write(note(0), rank=Rank.PROMPT)
            )
        await pending

    asyncio.run(burst())
    assert list(commits.values()).count(commits[0]) == 1 + USUAL_PER_COMMIT
    assert database.read_sync(_count) == 9


def test_slow_patient_writes_do_not_keep_usual_ones_waiting(database: Database) -> None:
    """The few patient ones that a commit takes may fill its time: a usual one that came last runs with them."""
    order: list[int] = []

    def note(number: int) -> Callable[[Connection], int]:
        def run(connection: Connection) -> int:
            order.append(number)
            until = time.thread_time() + (LONGEST_RUN_S / 4 if number < 40 else 0.0)
            while time.thread_time() < until:
                pass
            return _insert(number)(connection)

        return run

    async def burst() -> None:
        async with held_up(database):
            pending = asyncio.gather(
                *(database.write(note(number), rank=Rank.PATIENT) for number in range(40)), database.write(note(40))
            )
        await pending

    asyncio.run(burst())
    assert order.index(40) <= 8, "after those at most that a commit takes in any case"


def test_neighbours_of_a_failed_write_run_again_and_count_once(database: Database) -> None:
    """Writes without savepoints are undone with the one that failed, and are there once in the end."""
    runs: list[int] = []

    def insert(number: int) -> Callable[[Connection], int]:
        def run(connection: Connection) -> int:
            runs.append(number)
            return _insert(number)(connection)

        return run

    def fail(_: Connection) -> None:
        raise ValueError("no")

    async def all_at_once() -> list[object]:
        async with held_up(database):
            pending = asyncio.gather(
                database.write(insert(1)), database.write(fail), database.write(insert(2)), return_exceptions=True
            )
        return list(await pending)

    one, refused, two = asyncio.run(all_at_once())
    assert (one, str(refused), two) == (1, "no", 2)
    assert runs == [1, 1, 2]
    assert database.read_sync(_count) == 2


def test_a_cancelled_caller_withdraws_a_queued_write(database: Database) -> None:
    """A write whose caller went away before it ran is never run."""

    async def cancel_while_queued() -> None:
        async with held_up(database):
            second = asyncio.ensure_future(database.write(_insert(5)))
            await asyncio.sleep(0)
            second.cancel()
            await asyncio.gather(second, return_exceptions=True)

    asyncio.run(cancel_while_queued())
    assert database.read_sync(_count) == 0


def test_readers_cannot_write(database: Database) -> None:
    """A reader's connection refuses every change."""
    with pytest.raises(DBAPIError, match=r"readonly|read-only"):
        database.read_sync(_insert(1))


def test_close_finishes_what_was_queued(database: Database, place: Place) -> None:
    """Writes accepted before the close are committed by it."""
    futures = [database._submit(_insert(n)) for n in range(20)]
    database.close()
    assert [future.result(0) for future in futures] == list(range(20))
    again = place.database()
    again.open()
    assert again.read_sync(_count) == 20
    again.close()


def test_a_write_that_comes_during_the_close_is_refused(database: Database) -> None:
    """Nobody takes it any more, and nobody waits for it for ever."""
    writer, late = database._writer, []
    assert writer is not None

    def last(_: Connection) -> None:
        closing.start()
        assert writer._closing.wait(10)
        while not writer._writes.qsize():  # the end of the queue comes next
            pass
        late.append(writer.submit(_insert(1)))

    closing = threading.Thread(target=writer.close)
    writer.submit(last).result(10)
    closing.join()
    late.append(writer.submit(_insert(2)))
    for each in late:
        with pytest.raises(RuntimeError, match="the database is closed"):
            each.result(0)


def test_a_full_disk_is_told_as_such_and_nothing_is_written(file: Place) -> None:
    """When SQLite has no room, the caller gets DISK_FULL and every write of that commit is undone."""
    database = file.database()
    database.open()

    def limit(connection: Connection) -> None:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    database.write_sync(limit)

    def too_much(connection: Connection) -> None:
        connection.execute(text("INSERT INTO notes (id, text) VALUES (1, :text)"), {"text": "x" * 100_000})

    with pytest.raises(ServiceError) as caught:
        database.write_sync(too_much)
    assert caught.value.reason == Reason.DISK_FULL
    assert database.read_sync(_count) == 0
    database.close()


def test_a_second_process_on_the_same_folder_is_refused(database: Database, place: Place) -> None:
    """The second process is told which one holds the folder, and touches nothing."""
    program = place.source + "try: database.open()\nexcept FolderLocked as error: sys.exit(str(error))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "in use by process" in done.stderr
    assert "TUNEFORGE_DATA" in done.stderr


def test_the_same_process_is_refused_too(database: Database, place: Place) -> None:
    """Two databases of one process on one folder are a mistake as well."""
    with pytest.raises(FolderLocked):
        place.database().open()


def test_a_schema_behind_is_brought_to_its_head(database: Database, place: Place) -> None:
    """A start with a new revision keeps the rows and adds the column."""
    database.write_sync(_insert(3))
    database.close()
    (place.migrations / "versions" / "r0002.py").write_text(SECOND_REVISION)
    newer = place.database("0002")
    newer.open()
    rows = newer.read_sync(lambda connection: connection.execute(text("SELECT id, author FROM notes")).all())
    newer.close()
    assert [tuple(row) for row in rows] == [(3, None)]


def test_a_migration_that_breaks_off_leaves_nothing(database: Database, place: Place) -> None:
    """A revision and its mark are one transaction: the next start does it whole."""
    database.close()
    revision = place.migrations / "versions" / "r0002.py"
    revision.write_text(SECOND_REVISION + "    raise SystemExit('killed')\n")
    with pytest.raises(SystemExit):
        place.database("0002").open()
    older = place.database("0001")
    older.open()
    assert older.read_sync(_columns) == ["id", "text"]
    older.close()
    revision.write_text(SECOND_REVISION)
    newer = place.database("0002")
    newer.open()
    assert newer.read_sync(_columns) == ["id", "text", "author"]
    newer.close()


def test_a_newer_schema_is_refused(database: Database, place: Place) -> None:
    """A database of a newer release is left alone, and the sentence says what to do."""
    database.write_sync(lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '0999'")))
    database.close()
    older = place.database()
    with pytest.raises(SchemaTooNew, match="0999, which is newer than 0001"):
        older.open()
    older.close()


def test_the_database_of_another_service_is_refused(database: Database, place: Place) -> None:
    """A service that is pointed to the database of another one does not start, though their revisions are alike."""
    database.write_sync(_insert(1))
    database.close()
    with pytest.raises(StartRefused, match="letters"):
        place.database(service="letters").open()
    again = place.database()
    again.open()
    assert again.read_sync(_count) == 1
    again.close()


def test_a_start_at_head_does_not_import_alembic(database: Database, place: Place) -> None:
    """The import is a third of a second that only a migration pays."""
    database.close()
    program = place.source + "database.open(); database.close(); sys.exit('alembic' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_driver_of_a_server_is_imported_for_a_server_only(file: Place) -> None:
    """A suite on SQLite does not pay for PostgreSQL."""
    program = file.source + "database.open(); database.close(); sys.exit('psycopg' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_is_no_database_is_refused(file: Place) -> None:
    """A file of something else gives one sentence with its path, and stays as it is."""
    file.path.parent.mkdir()
    file.path.write_bytes(b"not a database" * 100)
    with pytest.raises(StartRefused, match=r"notes\.sqlite cannot be opened as a database"):
        file.database().open()
    assert file.path.read_bytes() == b"not a database" * 100


def test_an_old_sqlite_is_refused(file: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that can lose committed writes is not used."""
    monkeypatch.setattr(pysqlite3, "sqlite_version_info", (3, 40, 1))
    with pytest.raises(StartRefused, match="can lose committed writes"):
        file.database().open()


def test_a_locked_file_is_an_answer_that_may_be_repeated(file: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another program holds the file, writes are refused with a reason; afterwards they go through."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 20)
    database = file.database()
    database.open()
    other = pysqlite3.connect(file.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ServiceError) as caught:
        database.write_sync(_insert(1))
    assert caught.value.reason == Reason.DATABASE_UNAVAILABLE
    assert caught.value.retry_after_s
    other.execute("ROLLBACK")
    other.close()
    assert database.write_sync(_insert(1)) == 1
    database.close()


def test_a_killed_process_loses_nothing_acknowledged(place: Place) -> None:
    """Every write that a process printed as done before SIGKILL is there afterwards."""
    program = place.source + (
        "database.open()\n"
        "for n in range(10**6):\n"
        "    database.write_sync(lambda c: c.execute(text('INSERT INTO notes VALUES (:id, 0)'), {'id': n}) and None)\n"
        "    print(n, flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(20)]
        process.kill()
        acknowledged += [int(line) for line in process.stdout if line.endswith("\n")]
    database = place.database()
    database.open()
    stored = database.read_sync(lambda connection: set(connection.execute(text("SELECT id FROM notes")).scalars()))
    database.close()
    assert stored.issuperset(acknowledged)
