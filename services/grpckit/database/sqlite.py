"""SQLite: one file in the data folder, no server. All that is special to it stands here."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pysqlite3
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from services.grpckit.database.backend import READERS
from services.grpckit.errors import Reason, ServiceError
from services.grpckit.folder_lock import StartRefused

OLDEST_SQLITE = (3, 51, 3)
"""The first release without the fault that could lose a write when the WAL is reset under a reader; see docs/adr."""
BUSY_TIMEOUT_MS = 10_000
KEPT_STATEMENTS = 512
"""Prepared statements that a connection keeps: more than a service has. Once these are full, the driver drops the one
used least often, which is each new one: every statement would be prepared at each run, for longer than it runs."""
_READ_ONLY = 8
_FULL = 13
# Busy, locked, read-only, I/O error, cannot open: the world around the file, which may pass.
_PASSING = {5: "is locked", 6: "is locked", 8: "is read-only", 10: "has an I/O error", 14: "cannot be opened"}


class Sqlite:
    """The file; locked with its folder by `Database`, so that this process is the only one that has it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._engines: list[Engine] = []

    @property
    def place(self) -> str:
        """The path."""
        return str(self._path)

    @property
    def longest_belief_s(self) -> float:
        """For ever: the folder's lock keeps others out until this process ends."""
        return math.inf

    def open_writer(self) -> Connection:
        """Returns the connection that writes.

        Raises:
            StartRefused: the SQLite library is too old.
            DBAPIError: the file cannot be opened.
        """
        if pysqlite3.sqlite_version_info < OLDEST_SQLITE:
            needed = ".".join(map(str, OLDEST_SQLITE))
            raise StartRefused(
                f"SQLite {pysqlite3.sqlite_version} can lose committed writes; install pysqlite3 with {needed} or newer"
            )
        return self._engine("BEGIN IMMEDIATE", read_only=False).connect()

    def open_readers(self) -> Engine:
        """Returns connections that only read."""
        return self._engine("BEGIN", read_only=True)

    def claim(self, connection: Connection, service: str) -> None:
        """Keeps the service's name as the file's application id; files of older releases have none yet.

        Raises:
            StartRefused: the file is of another service.
        """
        if not service:
            return
        wanted = zlib.crc32(f"tuneforge {service}".encode()) & 0x7FFFFFFF
        with connection.begin():
            found = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
            if found == 0:
                connection.exec_driver_sql(f"PRAGMA application_id={wanted}")
        if found not in {0, wanted}:
            raise StartRefused(f"{self.place} is not a database of the {service}; move it away, or set TUNEFORGE_DATA")

    @contextmanager
    def without_limits(self, connection: Connection) -> Iterator[None]:
        """Does nothing: there are no limits."""
        del connection
        yield

    def mark(self, connection: Connection) -> str:
        """Leaves nothing: a commit of a library in this process has no unknown outcome."""
        del connection
        return ""

    def is_marked(self, connection: Connection, mark: str) -> bool:
        """Is never asked."""
        raise NotImplementedError

    def is_whole_transaction_undone(self, connection: Connection) -> bool:
        """Returns whether a full disk or an I/O error has made SQLite undo everything."""
        driver: Any = connection.connection.driver_connection
        return not driver.in_transaction

    def is_lost(self, error: BaseException) -> bool:
        """There is no connection that could be lost."""
        del error
        return False

    def answer(self, error: DBAPIError, *, is_read: bool = False) -> ServiceError | None:
        """Returns DISK_FULL or DATABASE_UNAVAILABLE; None for a fault of ours."""
        code = getattr(error.orig, "sqlite_errorcode", None)
        primary = None if code is None else code & 0xFF
        if primary == _FULL or (code is None and "database or disk is full" in str(error.orig)):
            return ServiceError(Reason.DISK_FULL, "the disk that holds the database is full; nothing was written")
        if primary in _PASSING and not (is_read and primary == _READ_ONLY):
            return ServiceError(
                Reason.DATABASE_UNAVAILABLE, f"the service's database {_PASSING[primary]}; nothing was written"
            )
        return None

    def refusal(self, error: DBAPIError) -> StartRefused:
        """Returns that the file cannot be used."""
        return StartRefused(f"{self.place} cannot be opened as a database: {error.orig}")

    def close(self) -> None:
        """Closes the readers, then the writer, which folds the WAL into the file as it goes."""
        for engine in reversed(self._engines):
            engine.dispose()
        self._engines.clear()

    def _engine(self, begin: str, *, read_only: bool) -> Engine:
        engine = create_engine(
            URL.create("sqlite+pysqlite", database=str(self._path)),
            module=pysqlite3,
            connect_args={"cached_statements": KEPT_STATEMENTS},
            pool_size=READERS,
            max_overflow=READERS,
            hide_parameters=True,
        )
        self._engines.append(engine)

        @event.listens_for(engine, "connect")
        def configure(connection: Any, _record: object) -> None:
            # None: the driver starts no transactions by itself, so savepoints and DDL are transactional.
            connection.isolation_level = None
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")
            cursor.execute("PRAGMA foreign_keys=ON")
            cursor.execute(f"PRAGMA query_only={'ON' if read_only else 'OFF'}")
            cursor.close()

        def start(connection: Any) -> None:
            connection.cursor().execute(begin)

        # As a part of the dialect, not as a listener: an engine with listeners looks for some at each statement.
        setattr(engine.dialect, "do_begin", start)  # noqa: B010 - its type has no such assignment
        return engine
