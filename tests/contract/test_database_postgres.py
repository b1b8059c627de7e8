"""PostgreSQL under a service: nothing acknowledged is lost, nothing is written twice, and faults are told as such."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from services.grpckit.database import Database, FolderLocked, PostgresAddress, StartRefused, postgres, writer
from services.grpckit.errors import Reason, ServiceError
from services.grpckit.settings import Environment
from services.stores.postgres import LocalPostgres
from tests.support.cut_commits import Cut, CuttingProxy
from tests.support.held_up import held_up
from tests.support.postgres import TestDatabases

pytestmark = pytest.mark.postgres

REVISION = '''
"""A log without a key, in which a repeated write would show."""
import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table("log", sa.Column("entry", sa.Integer, nullable=False))
    op.create_table("words", sa.Column("word", sa.String(8), primary_key=True))
'''


@pytest.fixture
def own_server() -> Iterator[LocalPostgres]:
    """A server of the test's own, which asks for a password, to be crashed and started again."""
    with tempfile.TemporaryDirectory(prefix="tuneforge-postgres-") as folder:
        Path(folder).chmod(0o755)
        server = LocalPostgres(Path(folder) / "server")
        server.start()
        yield server
        server.crash()


@pytest.fixture
def address(postgres_databases: TestDatabases) -> PostgresAddress:
    """An empty database on the shared server."""
    return postgres_databases.empty()


class Service:
    """What stands for a service: folder, migrations, database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._migrations = folder / "migrations"
        (self._migrations / "versions").mkdir(parents=True)
        (self._migrations / "versions" / "r0001.py").write_text(REVISION)

    def database(self, address: PostgresAddress, folder: str = "data") -> Database:
        """Returns its database, not yet open."""
        path = self.folder / folder / "log.sqlite"
        return Database(path, migrations=self._migrations, schema_head="0001", service="log", postgres=address)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A service without anything in its folder."""
    return Service(tmp_path)


def log(entry: int) -> Callable[[Connection], int]:
    """Returns a write that is not idempotent."""

    def run(connection: Connection) -> int:
        connection.execute(text("INSERT INTO log (entry) VALUES (:entry)"), {"entry": entry})
        return entry

    return run


def entries(connection: Connection) -> list[int]:
    """Returns the log in order."""
    return list(connection.execute(text("SELECT entry FROM log ORDER BY entry")).scalars())


def behind(proxy: CuttingProxy, address: PostgresAddress) -> PostgresAddress:
    """Returns the same database through a proxy."""
    return replace(address, url=address.url.set(port=proxy.port))


@pytest.mark.parametrize("where", list(Cut))
def test_a_cut_commit_is_made_once(
    service: Service, address: PostgresAddress, where: Cut, postgres_server: LocalPostgres
) -> None:
    """Whether the commit had happened or not when the connection broke: each write is there once, and told as done."""
    proxy = CuttingProxy(postgres_server.port)
    database = service.database(behind(proxy, address))
    database.open()
    try:
        database.write_sync(log(1))
        proxy.cut_next(where)
        assert database.write_sync(log(2)) == 2
        proxy.cut_next(where)

        async def together() -> list[int]:
            return list(await asyncio.gather(*(database.write(log(entry)) for entry in range(3, 40))))

        assert asyncio.run(together()) == list(range(3, 40))
        assert proxy.cuts == 2
        assert database.read_sync(entries) == list(range(1, 40))
    finally:
        database.close()
        proxy.close()


def test_a_restart_of_the_server_loses_and_repeats_nothing(service: Service, own_server: LocalPostgres) -> None:
    """While the server crashes and comes back three times, every write that was told as done is there, once."""
    own_server.create_database("log")
    database = service.database(own_server.address("log"))
    database.open()
    stopping = threading.Event()

    doubtful: set[int] = set()

    def write_on(first: int) -> list[int]:
        done: list[int] = []
        for entry in range(first, first + 10**6):
            if stopping.is_set():
                return done
            try:
                done.append(database.write_sync(log(entry)))
            except ServiceError as error:  # on a busy machine the server is away for longer than writes wait
                if error.metadata["is_outcome_known"] == "false":
                    doubtful.add(entry)
        return done

    with ThreadPoolExecutor(4) as threads:
        pending = [threads.submit(write_on, number * 10**6) for number in range(4)]
        for _ in range(3):
            until(partial(has_committed, database, database.commits + 20))
            own_server.crash()
            own_server.start()
        until(partial(has_committed, database, database.commits + 20))
        stopping.set()
        acknowledged = {entry for each in pending for entry in each.result()}
    stored = database.read_sync(entries)
    assert len(stored) == len(set(stored))
    assert acknowledged <= set(stored) <= acknowledged | doubtful
    database.close()


def test_terminated_sessions_are_not_noticed(service: Service, own_server: LocalPostgres) -> None:
    """An administrator who ends all sessions, again and again, ends neither writes nor reads."""
    own_server.create_database("log")
    database = service.database(own_server.address("log"))
    database.open()
    for entry in range(12):
        own_server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'log' AND pid <> pg_backend_pid()"
        )
        assert database.read_sync(entries) == list(range(entry))
        assert database.write_sync(log(entry)) == entry
    database.close()


def test_a_server_that_stays_away_is_an_answer_that_may_be_repeated(
    service: Service, own_server: LocalPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes and reads are refused as UNAVAILABLE after a while, and go through once the server is back."""
    own_server.create_database("log")
    database = service.database(own_server.address("log"))
    database.open()
    assert database._writer is not None
    database._writer._patience_s = 0.3
    own_server.stop()
    for call in (lambda: database.write_sync(log(1)), lambda: database.read_sync(entries)):
        with pytest.raises(ServiceError) as caught:
            call()
        assert (caught.value.reason, caught.value.code) == (Reason.DATABASE_UNAVAILABLE, "UNAVAILABLE")
        assert caught.value.retry_after_s
    monkeypatch.setattr(writer, "RETRY_S", 3600.0)  # the patience is over: who waited again would not come back
    with pytest.raises(ServiceError, match="nothing was written"):
        database.write_sync(log(2))
    own_server.start()
    assert database.write_sync(log(3)) == 3
    assert database.read_sync(entries) == [3]
    database.close()


def test_a_second_process_is_refused_and_a_dead_one_is_not(
    service: Service, address: PostgresAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another folder or machine: who holds the database keeps others out, until it ends in whatever way."""
    monkeypatch.setattr(postgres, "LOCK_WAIT_MS", 300)
    first = service.database(address)
    first.open()
    with pytest.raises(FolderLocked, match="in use by another process"):
        service.database(address, "elsewhere").open()
    first.write_sync(log(1))
    first.close()
    second = service.database(address, "elsewhere")
    second.open()
    assert second.read_sync(entries) == [1]
    second.close()


def test_who_has_lost_its_session_does_not_write_beside_its_successor(
    service: Service, own_server: LocalPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When another process has taken the database over meanwhile, the old one's writes are refused."""
    own_server.create_database("log")
    monkeypatch.setattr(postgres, "LOCK_WAIT_MS", 1000)
    old, new = service.database(own_server.address("log")), service.database(own_server.address("log"), "elsewhere")
    old.open()
    own_server.crash()
    own_server.start()
    new.open()
    assert old._writer is not None
    old._writer._patience_s = 0.0
    with pytest.raises(ServiceError) as caught:
        old.write_sync(log(1))
    assert caught.value.reason == Reason.DATABASE_UNAVAILABLE
    assert new.write_sync(log(2)) == 2
    assert new.read_sync(entries) == [2]
    old.close()
    new.close()


def test_wrong_settings_end_the_start(service: Service, own_server: LocalPostgres) -> None:
    """A wrong password, a database that is not there, foreign tables, another order of texts: one sentence each."""
    own_server.create_database("log")
    address = own_server.address("log")
    own_server.create_database("foreign")
    own_server.execute("CREATE TABLE things (id int)", database="foreign")
    cases = {
        replace(address, password_file=None, password="wrong"): "password authentication failed",
        replace(address, url=address.url.set(database="absent")): "does not exist",
        replace(address, url=address.url.set(database="foreign")): "holds tables of something else",
        replace(address, url=address.url.set(query={"no_such_option": "1"})): "no_such_option",
    }
    with suppress(psycopg.errors.FeatureNotSupported):  # not every build can sort by a language
        own_server.execute("CREATE DATABASE sorted TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en' LOCALE 'C'")
        cases[replace(address, url=address.url.set(database="sorted"))] = "does not sort texts by their bytes"
    secret = own_server.password_file.read_text()
    for wrong, problem in cases.items():
        began = time.monotonic()
        with pytest.raises(StartRefused, match=problem) as caught:
            service.database(wrong).open()
        assert time.monotonic() - began < postgres.START_PATIENCE_S  # at once, in place of waiting
        assert caught.value.exit_code == 78
        assert secret not in str(caught.value)
        assert "\n" not in str(caught.value)
    assert own_server.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database="foreign") == [
        ("things",)
    ]


def test_a_server_that_is_not_there_is_waited_for_then_named(service: Service, own_server: LocalPostgres) -> None:
    """A start waits for a server that comes up, and says where it looked when none comes."""
    own_server.create_database("log")
    address = own_server.address("log")
    own_server.stop()
    backend = postgres.Postgres(address, start_patience_s=0.3)
    with pytest.raises(DBAPIError) as caught:
        backend.open_writer()
    refusal = backend.refusal(caught.value)
    assert f"127.0.0.1:{own_server.port} cannot be used" in str(refusal)
    assert refusal.exit_code == 75  # nothing is wrong with the settings: the same start may work later
    backend.close()
    database = service.database(address)
    with ThreadPoolExecutor(1) as threads:
        opening = threads.submit(database.open)
        own_server.start()
        opening.result()
    database.close()


def test_too_many_connections_is_an_answer_that_may_be_repeated(service: Service, own_server: LocalPostgres) -> None:
    """A reader that gets no connection says so; once there is one again, it reads."""
    own_server.create_database("log")
    own_server.execute("CREATE ROLE few LOGIN PASSWORD 'few' CONNECTION LIMIT 1")
    own_server.execute("ALTER DATABASE log OWNER TO few")
    address = own_server.address("log")
    few = replace(address, url=address.url.set(username="few"), password="few", password_file=None)
    database = service.database(few)
    database.open()  # the writer has the only connection
    with pytest.raises(ServiceError) as caught:
        database.read_sync(entries)
    assert caught.value.reason == Reason.DATABASE_UNAVAILABLE
    own_server.execute("ALTER ROLE few CONNECTION LIMIT 9")
    assert database.read_sync(entries) == []
    database.close()


def test_a_server_turned_read_only_is_an_answer_that_may_be_repeated(
    service: Service, address: PostgresAddress, postgres_server: LocalPostgres
) -> None:
    """Writes are refused while the server takes none, as after a failover; reads go on."""
    database = service.database(address)
    database.open()
    database.write_sync(log(1))
    name = address.url.database
    for setting, is_refused in (("= on", True), ("= off", False)):
        postgres_server.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only {setting}')
        postgres_server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", name)
        if is_refused:
            with pytest.raises(ServiceError, match="is read-only") as caught:
                database.write_sync(log(2))
            assert caught.value.reason == Reason.DATABASE_UNAVAILABLE
            assert database.read_sync(entries) == [1]
    assert database.write_sync(log(3)) == 3
    assert database.read_sync(entries) == [1, 3]
    database.close()


def test_a_failed_statement_undoes_its_write_alone(service: Service, address: PostgresAddress) -> None:
    """A duplicate key in a batch, which PostgreSQL answers by ending the transaction, costs the neighbours nothing."""
    database = service.database(address)
    database.open()

    def word(value: str) -> Callable[[Connection], str]:
        def run(connection: Connection) -> str:
            connection.execute(text("INSERT INTO words (word) VALUES (:word)"), {"word": value})
            return value

        return run

    async def together() -> list[object]:
        async with held_up(database):
            pending = asyncio.gather(
                *(database.write(word(value)) for value in ("a", "b", "a", "c")), return_exceptions=True
            )
        return list(await pending)

    outcomes = asyncio.run(together())
    assert [outcomes[0], outcomes[1], outcomes[3]] == ["a", "b", "c"]
    assert isinstance(outcomes[2], DBAPIError)
    database.close()


def test_what_postgres_cannot_hold_is_the_callers_fault(service: Service, address: PostgresAddress) -> None:
    """A NUL in a text is refused as a wrong field, not as a fault of the service."""
    database = service.database(address)
    database.open()
    with pytest.raises(ServiceError) as caught:
        database.write_sync(
            lambda connection: connection.execute(text("INSERT INTO words VALUES (:word)"), {"word": "a\0b"}) and None
        )
    assert caught.value.reason == Reason.INVALID_FIELD
    database.close()


def test_an_unset_address_does_not_begin_anew(service: Service, address: PostgresAddress) -> None:
    """A folder whose metadata is on a server is not served from an empty file, nor the other way round."""
    database = service.database(address)
    database.open()
    database.close()
    path = service.folder / "data" / "log.sqlite"
    bare = Database(path, migrations=service.folder / "migrations", schema_head="0001", service="log")
    with pytest.raises(StartRefused, match="TUNEFORGE_LOG_DATABASE_URL is not set"):
        bare.open()
    assert not path.exists()
    elsewhere = Database(
        service.folder / "other" / "log.sqlite",
        migrations=service.folder / "migrations",
        schema_head="0001",
        service="log",
    )
    elsewhere.open()
    elsewhere.close()
    with pytest.raises(StartRefused, match=r"the data of this folder is in .*log\.sqlite"):
        service.database(address, "other").open()


def test_sessions_are_safe_and_readers_see_one_snapshot(service: Service, address: PostgresAddress) -> None:
    """Commits are synchronous, statements and locks have limits, and a reader's two looks see the same."""
    database = service.database(address)
    database.open()

    def show(connection: Connection) -> list[str]:
        names = ("synchronous_commit", "statement_timeout", "lock_timeout", "transaction_isolation")
        return [str(connection.exec_driver_sql(f"SHOW {name}").scalar_one()) for name in names]

    assert database.write_sync(show) == ["on", "30s", "10s", "read committed"]
    assert database.read_sync(show) == ["on", "30s", "10s", "repeatable read"]

    def look_twice(connection: Connection) -> tuple[list[int], list[int]]:
        before = entries(connection)
        database.write_sync(log(1))
        return before, entries(connection)

    assert database.read_sync(look_twice) == ([], [])
    assert database.read_sync(entries) == [1]
    database.close()


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"URL": "postgresql://me:secret-word@host/db"}, "holds a password"),
        ({"URL": "postgresql://me@host/db?password=secret-word"}, "holds a password"),
        ({"URL": "mysql://me@host/db"}, "is wrong"),
        ({"URL": "postgresql://me@host"}, "is wrong"),
        ({"URL": "://secret-word"}, "cannot be read"),
        ({"URL": "postgresql://me@h/db", "PASSWORD": "secret-word", "PASSWORD_FILE": __file__}, "both set"),
        ({"URL": "postgresql://me@h/db", "PASSWORD_FILE": "/no/such/file"}, "a file that can be read"),
    ],
)
def test_wrong_addresses_are_named_without_their_secrets(variables: dict[str, str], problem: str) -> None:
    """Each wrong setting is named with what it must be, and no problem repeats a password."""
    env = Environment({f"TUNEFORGE_LOG_DATABASE_{name}": value for name, value in variables.items()})
    found = PostgresAddress.from_env("log", env)
    assert len(env.problems) == 1
    assert problem in env.problems[0]
    assert "secret-word" not in env.problems[0]
    assert "secret-word" not in repr(found)


def has_committed(database: Database, count: int) -> bool:
    """Returns whether a database has made as many commits."""
    return database.commits > count


def until(condition: Callable[[], bool]) -> None:
    """Waits for something that happens in other threads."""
    pause = threading.Event()
    while not condition():
        pause.wait(0.005)
