"""PostgreSQL: one database a service, one process a database. All that is special to it stands here.

The writer's session holds an advisory lock for as long as it lives. So a second process cannot get a writer at all, and
whoever has connected again knows that the session before is over and its last commit final, one way or the other.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from services.grpckit.database.address import PostgresAddress
from services.grpckit.database.backend import READERS
from services.grpckit.errors import FieldViolation, Reason, ServiceError, invalid_fields
from services.grpckit.folder_lock import FolderLocked, StartDelayed, StartRefused

OLDEST_SERVER = 140000
LOCK_WAIT_MS = 5_000
"""How long the lock of a writer that has just ended is waited for, in milliseconds. 5 s: a busy server needs a while to
notice that a process was killed."""
SHARED_LOCK_WAIT_MS = 1_000
"""The same where others stand by: they ask again and again."""
SHARED_IDLE_S = 15
"""Seconds without a word after which the server ends the session of a writer beside which others stand by, and with it
the lock. 15: a writer says something every 3 s."""
START_PATIENCE_S = 10.0
"""Seconds that a start waits for a server that does not take connections yet."""
_RETRY_S = 0.2
_LOCK_KEY = 0x54554E45464F5247
"""Key of the advisory lock; locks are told apart by database, so one key does for all services."""
_SESSION = {
    "synchronous_commit": "on",
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "60s",
    # The server's own search for a client whose machine has vanished, with the lock in its hands.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "timezone": "UTC",
}
_CLIENT = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
"""libpq's parameters where the URL does not name them: a server that has vanished is noticed within half a minute."""

_LOCK_NOT_AVAILABLE = "55P03"
_DISK_FULL = "53100"
_READ_ONLY = "25006"
_NUMBER_OUT_OF_RANGE = "22003"
_GONE = ("08", "57P01", "57P02", "57P03", "57P05", "53300")
_BUSY = {
    _READ_ONLY: "is read-only",
    "53200": "is out of memory",
    _LOCK_NOT_AVAILABLE: "is locked by somebody else",
    "57014": "took too long",
    "40001": "was changed by somebody else",
    "40P01": "was changed by somebody else",
    "25P03": "ended a transaction that stood still",
}
# Refusals that no waiting cures; libpq gives no codes while it connects, and these words of the server not translated.
_WRONG_SETTINGS = (
    "authentication", "does not exist", "pg_hba.conf", "no password", "support SSL", "certificate", "invalid",
    "could not translate", "permission denied", "role ", "Name or service not known", "nodename nor servname",
)  # fmt: skip

_WRITER_TABLE = "tuneforge_writer"


class Postgres:
    """One database of one server.

    Args:
        address: Server, database, user, password.
        start_patience_s: Seconds that the first connection waits for a server that does not take any yet.
        lock_wait_ms: Milliseconds that a connection waits for the lock of a writer that has just ended, > 0; None:
            `LOCK_WAIT_MS`.
        is_shared: Others stand by: the wait for the lock is short, and a writer that hangs loses its session.
    """

    def __init__(
        self,
        address: PostgresAddress,
        *,
        start_patience_s: float = START_PATIENCE_S,
        lock_wait_ms: int | None = None,
        is_shared: bool = False,
    ) -> None:
        self._address = address
        self._patience_s = start_patience_s
        self._lock_wait_ms = lock_wait_ms or (SHARED_LOCK_WAIT_MS if is_shared else LOCK_WAIT_MS)
        self._is_shared = is_shared
        self._writers: Engine | None = None
        self._readers: Engine | None = None
        self._was_open = False

    @property
    def place(self) -> str:
        """Database and server, without user and password."""
        return str(self._address)

    @property
    def longest_belief_s(self) -> float:
        """A second: a session that broke while nothing was written is noticed with the next write only."""
        return 1.0

    # --- connections ----------------------------------------------------------------------------------------------
    def open_writer(self) -> Connection:
        """Returns the connection that writes, with the lock. The first one waits for a server that is starting.

        Raises:
            FolderLocked: another process has the lock.
            StartRefused: the server is too old, or the database sorts in another order than SQLite.
            DBAPIError: the server does not take a connection.
        """
        if self._writers is None:
            self._writers = self._engine("writer", read_only=False)
        connection = self._connect(self._writers)
        try:
            if not self._was_open:
                self._check(connection)
            self._lock(connection)
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        self._was_open = True
        return connection

    def _connect(self, engine: Engine) -> Connection:
        give_up_at = time.monotonic() + (0.0 if self._was_open else self._patience_s)
        pause = threading.Event()
        while True:
            try:
                return engine.connect()
            except DBAPIError as error:
                if _is_final(error) or not self.is_lost(error) or time.monotonic() >= give_up_at:
                    raise
            pause.wait(_RETRY_S)

    def _lock(self, connection: Connection) -> None:
        try:
            with connection.begin():
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = {self._lock_wait_ms}")
                connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK_KEY})
        except DBAPIError as error:
            if _sqlstate(error) != _LOCK_NOT_AVAILABLE:
                raise
            raise FolderLocked(
                f"{self.place} is in use by another process; stop it, or give this service a database of its own"
            ) from error

    def _check(self, connection: Connection) -> None:
        """Refuses a server whose answers would differ from what the stores rely on."""
        with connection.begin():
            version = int(connection.exec_driver_sql("SHOW server_version_num").scalar_one())
            encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
            is_bytewise = connection.exec_driver_sql("SELECT 'B' < 'a' AND 'a-c' < 'ab'").scalar_one()
        if version < OLDEST_SERVER:
            raise StartRefused(f"{self.place} runs PostgreSQL {version // 10000}; 14 or newer is needed")
        if encoding != "UTF8" or not is_bytewise:
            raise StartRefused(
                f"{self.place} does not sort texts by their bytes in UTF-8; make it with CREATE DATABASE "
                f"{self._address.url.database} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"
            )

    def open_readers(self) -> Engine:
        """Returns read-only connections that see one snapshot a transaction."""
        self._readers = self._engine("reader", read_only=True)
        return self._readers

    def close(self) -> None:
        """Closes all connections, and gives the lock back with the writer's."""
        for engine in (self._readers, self._writers):
            if engine is not None:
                engine.dispose()

    def _engine(self, role: str, *, read_only: bool) -> Engine:
        address = self._address
        session = dict(_SESSION)
        if self._is_shared and not read_only:
            session |= dict.fromkeys(
                ("idle_session_timeout", "idle_in_transaction_session_timeout"), f"{SHARED_IDLE_S}s"
            )
        options = " ".join(f"-c {name}={value}" for name, value in session.items())
        given = address.url.query
        parameters = {name: value for name, value in _CLIENT.items() if name not in given}
        parameters["application_name"] = f"tuneforge {address.url.database} {role}"
        parameters["options"] = f"{options} {given.get('options', '')}".strip()
        engine = create_engine(
            URL.create("postgresql+psycopg").set(
                username=address.url.username,
                host=address.url.host,
                port=address.url.port,
                database=address.url.database,
                query={name: value for name, value in given.items() if name not in parameters},
            ),
            connect_args=parameters,
            isolation_level="REPEATABLE READ" if read_only else "READ COMMITTED",
            pool_size=READERS if read_only else 1,
            max_overflow=READERS if read_only else 0,
            hide_parameters=True,
        )

        @event.listens_for(engine, "do_connect")
        def give_password(_dialect: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]) -> None:
            # A file that cannot be read just now is no password: the server's refusal says the rest.
            with suppress(OSError):
                if password := address.current_password():
                    parameters["password"] = password

        @event.listens_for(engine, "connect")
        def restrict(connection: Any, _record: object) -> None:
            # The writer leaves it to the server: one that takes no writes for a while says so at the first.
            connection.read_only = True if read_only else None

        return engine

    # --- owner ----------------------------------------------------------------------------------------------------
    def claim(self, connection: Connection, service: str) -> None:
        """Makes the writer's table in an empty database, with the service's name.

        Raises:
            StartRefused: the database is another service's, or holds tables of something else.
        """
        with connection.begin():
            tables = set(
                connection.execute(
                    text("SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = current_schema()")
                ).scalars()
            )
            if not tables:
                connection.exec_driver_sql(
                    f"CREATE TABLE {_WRITER_TABLE} (service varchar(64) PRIMARY KEY, mark varchar(64) NOT NULL)"
                )
                connection.execute(
                    text(f"INSERT INTO {_WRITER_TABLE} (service, mark) VALUES (:service, '')"),  # noqa: S608
                    {"service": service},
                )
            elif _WRITER_TABLE not in tables:
                raise StartRefused(
                    f"{self.place} holds tables of something else, and nothing in it was changed; give the service an "
                    "empty database of its own"
                )
            owner = connection.exec_driver_sql(f"SELECT service FROM {_WRITER_TABLE}").scalar_one()  # noqa: S608
        if service and owner != service:
            raise StartRefused(
                f"{self.place} belongs to the {owner}, and nothing in it was changed; give the {service} an empty "
                "database of its own"
            )

    @contextmanager
    def without_limits(self, connection: Connection) -> Iterator[None]:
        """Lifts the limit on statements: a migration may take long. What it waits for is still limited."""
        with connection.begin():
            connection.exec_driver_sql("SET statement_timeout = 0")
        yield
        with connection.begin():
            connection.exec_driver_sql("RESET statement_timeout")

    # --- commits --------------------------------------------------------------------------------------------------
    def mark(self, connection: Connection) -> str:
        """Leaves a random mark, unless the transaction has written nothing: then there is nothing to be certain of."""
        mark = secrets.token_hex(16)
        connection.execute(
            text(f"UPDATE {_WRITER_TABLE} SET mark = :mark WHERE pg_current_xact_id_if_assigned() IS NOT NULL"),  # noqa: S608
            {"mark": mark},
        )
        return mark

    def is_marked(self, connection: Connection, mark: str) -> bool:
        """Returns whether the transaction with this mark is the last one that was committed."""
        with connection.begin():
            return bool(connection.exec_driver_sql(f"SELECT mark FROM {_WRITER_TABLE}").scalar_one() == mark)  # noqa: S608

    def is_whole_transaction_undone(self, connection: Connection) -> bool:
        """An error undoes no more than its savepoint, except where the connection is lost."""
        return connection.invalidated

    # --- errors ---------------------------------------------------------------------------------------------------
    def is_lost(self, error: BaseException) -> bool:
        """Returns whether the connection is gone or was not given."""
        if not isinstance(error, DBAPIError):
            return False
        state = _sqlstate(error)
        return error.connection_invalidated or state.startswith(_GONE) or (not state and _is_operational(error))

    def answer(self, error: DBAPIError, *, is_read: bool = False) -> ServiceError | None:
        """Returns DISK_FULL, DATABASE_UNAVAILABLE or, for what PostgreSQL cannot hold, INVALID_FIELD."""
        state = _sqlstate(error)
        if state == _DISK_FULL:
            return ServiceError(Reason.DISK_FULL, "the disk that holds the database is full; nothing was written")
        if state in _BUSY and not (is_read and state == _READ_ONLY):
            return ServiceError(
                Reason.DATABASE_UNAVAILABLE, f"the service's database {_BUSY[state]}; nothing was written"
            )
        if self.is_lost(error):
            return ServiceError(Reason.DATABASE_UNAVAILABLE, "the service's database does not answer")
        if state == _NUMBER_OUT_OF_RANGE:
            return invalid_fields([FieldViolation("name", "has a number that is larger than any that is given")])
        if "NUL (0x00)" in str(error.orig):
            return invalid_fields([FieldViolation("request", "has a text with a NUL character; take it out")])
        return None

    def refusal(self, error: DBAPIError) -> StartRefused:
        """Returns why the service cannot use the server, by the server's own words."""
        problem = " ".join(str(error.orig).split())
        kind = StartDelayed if self.is_lost(error) and not _is_final(error) else StartRefused
        return kind(f"{self.place} cannot be used: {problem}")


def _sqlstate(error: DBAPIError) -> str:
    return cast("str | None", getattr(error.orig, "sqlstate", None)) or ""


def _is_final(error: DBAPIError) -> bool:
    """Returns whether no waiting changes what the server said while it was connected to."""
    return any(words in str(error.orig) for words in _WRONG_SETTINGS)


def _is_operational(error: DBAPIError) -> bool:
    import psycopg

    return isinstance(error.orig, psycopg.OperationalError)
