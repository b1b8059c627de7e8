"""A service's own database: one writer thread, a few read-only readers, every acknowledged write on disk.

What is special to SQLite stands here, but for one trigger in the scheduler's schema; stores use SQLAlchemy Core.
PostgreSQL is meant to become another engine behind these functions; nothing has run on it yet.
There is no ORM and no asyncio engine: a write is a plain function that gets a connection. Writes that wait while a
commit runs share the next one (group commit), each in a savepoint of its own, so one that fails does not take its
neighbours along.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import pysqlite3
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from services.grpckit.errors import Reason, ServiceError
from services.grpckit.folder_lock import FolderLock, FolderLocked, StartRefused

__all__ = ["Database", "FolderLocked", "SchemaTooNew", "StartRefused"]

T = TypeVar("T")

# The first release without the fault that could lose a write when the WAL is reset under a reader; see docs/adr.
OLDEST_SQLITE = (3, 51, 3)
READERS = 4
# Writes that share one commit at most: keeps the wait of the first one bounded when writers never pause.
WRITES_PER_COMMIT = 256
BUSY_TIMEOUT_MS = 10_000
SQLITE_FULL = 13


class SchemaTooNew(StartRefused):
    """The file was written by a newer release than this one."""


@dataclass(frozen=True, slots=True)
class _Write(Generic[T]):
    """One queued write and the place where its result goes."""

    run: Callable[[Connection], T]
    future: Future[T]


class Database:
    """The database of one service, in one file, owned by one process.

    Args:
        path: The SQLite file; its folder is locked while the database is open.
        migrations: Folder of the service's Alembic revisions (holds `versions/`).
        schema_head: Newest revision in that folder, as a constant of the service, so that a start with the schema in
            place need not read the folder.
    """

    def __init__(self, path: Path, *, migrations: Path, schema_head: str) -> None:
        self._path = path
        self._migrations = migrations
        self._schema_head = schema_head
        self._lock = FolderLock(path.parent)
        self._writes: queue.SimpleQueue[_Write[Any] | None] = queue.SimpleQueue()
        self._readers: ThreadPoolExecutor | None = None
        self._thread: threading.Thread | None = None
        self._engines: list[Engine] = []
        self.commits = 0
        """Transactions of the writer since the start, for tests and metrics."""

    # --- life -----------------------------------------------------------------------------------------------------
    def open(self) -> None:
        """Locks the folder, brings the schema to its head and starts the threads.

        Raises:
            FolderLocked: another process uses the folder.
            SchemaTooNew: the file belongs to a newer release; nothing in it was changed.
            StartRefused: the SQLite library is too old, or the file cannot be opened.
        """
        if pysqlite3.sqlite_version_info < OLDEST_SQLITE:
            needed = ".".join(map(str, OLDEST_SQLITE))
            raise StartRefused(
                f"SQLite {pysqlite3.sqlite_version} can lose committed writes; install pysqlite3 with {needed} or newer"
            )
        self._lock.acquire()
        try:
            writer = _engine(self._path, "BEGIN IMMEDIATE", read_only=False)
            self._engines.append(writer)
            self._bring_to_head(writer)
            reader = _engine(self._path, "BEGIN", read_only=True)
            self._engines.append(reader)
        except DBAPIError as error:
            self._release()
            raise StartRefused(f"{self._path} cannot be opened as a database: {error.orig}") from error
        except BaseException:
            self._release()
            raise
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="database-reader")
        self._thread = threading.Thread(target=self._write_loop, args=(writer,), name="database-writer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finishes the queued writes, then closes everything; a second call does nothing."""
        if self._thread is not None:
            self._writes.put(None)
            self._thread.join()
            self._thread = None
        if self._readers is not None:
            self._readers.shutdown(wait=True)
            self._readers = None
        self._release()

    def _release(self) -> None:
        for engine in reversed(self._engines):  # the writer last: it folds the WAL into the file as it goes
            engine.dispose()
        self._engines.clear()
        self._lock.release()

    def _bring_to_head(self, engine: Engine) -> None:
        with engine.connect() as connection:
            with connection.begin():
                current = _current_revision(connection)
            if current == self._schema_head:
                return
            from services.grpckit import migrations

            if current is not None and current not in migrations.known_revisions(self._migrations):
                raise SchemaTooNew(
                    f"{self._path} has schema {current}, which is newer than {self._schema_head}, the newest that this "
                    "release knows; start the release that wrote it, or set TUNEFORGE_DATA to another folder"
                )
            migrations.upgrade(connection, self._migrations, current)

    # --- use ------------------------------------------------------------------------------------------------------
    async def write(self, run: Callable[[Connection], T]) -> T:
        """Runs a function in a write transaction and returns what it returned, once that is on disk.

        The function runs on the writer thread: it must be quick, do nothing but SQL, and be free of effects outside the
        database, because a later failure of the commit undoes it. An exception undoes this write alone.

        A caller that is cancelled while the write is queued withdraws it; one that already runs is finished.

        Raises:
            ServiceError: `DISK_FULL`; nothing was written.
        """
        return await asyncio.wrap_future(self._submit(run))

    def write_sync(self, run: Callable[[Connection], T]) -> T:
        """Does what `write` does from a thread without an event loop."""
        return self._submit(run).result()

    async def read(self, run: Callable[[Connection], T]) -> T:
        """Runs a function in a reader thread on one snapshot of what is committed; it cannot write."""
        return await asyncio.wrap_future(self._reader_pool().submit(self._read_now, run))

    def read_sync(self, run: Callable[[Connection], T]) -> T:
        """Does what `read` does from a thread without an event loop."""
        return self._read_now(run)

    # --- threads --------------------------------------------------------------------------------------------------
    def _reader_pool(self) -> ThreadPoolExecutor:
        if self._readers is None:
            raise RuntimeError("the database is not open")
        return self._readers

    def _read_now(self, run: Callable[[Connection], T]) -> T:
        with self._engines[1].connect() as connection, connection.begin():
            return run(connection)

    def _submit(self, run: Callable[[Connection], T]) -> Future[T]:
        if self._thread is None:
            raise RuntimeError("the database is not open")
        future: Future[T] = Future()
        self._writes.put(_Write(run, future))
        return future

    def _write_loop(self, engine: Engine) -> None:
        with engine.connect() as connection:
            running = True
            while running:
                batch: list[_Write[Any]] = []
                running = self._collect(batch)
                if batch:
                    self.commits += 1
                    _commit_together(connection, batch)

    def _collect(self, batch: list[_Write[Any]]) -> bool:
        """Fills a batch with what waits, at least one write; False once the queue was closed."""
        entry = self._writes.get()
        while entry is not None:
            if entry.future.set_running_or_notify_cancel():
                batch.append(entry)
            if len(batch) >= WRITES_PER_COMMIT:
                return True
            try:
                entry = self._writes.get_nowait()
            except queue.Empty:
                return True
        return False


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What one write of a batch returned or raised; it counts only after the commit."""

    value: Any = None
    error: BaseException | None = None


def _commit_together(connection: Connection, batch: Sequence[_Write[Any]]) -> None:
    outcomes: list[_Outcome] = []
    try:
        with connection.begin():
            outcomes.extend(_run_in_savepoint(connection, write) for write in batch)
    except BaseException as error:  # noqa: BLE001 - every waiting caller must hear of it
        outcomes = [_Outcome(error=_translated(error))] * len(batch)
    for write, outcome in zip(batch, outcomes, strict=True):
        if outcome.error is not None:
            write.future.set_exception(outcome.error)
        else:
            write.future.set_result(outcome.value)


def _run_in_savepoint(connection: Connection, write: _Write[Any]) -> _Outcome:
    savepoint = connection.begin_nested()
    try:
        value = write.run(connection)
        savepoint.commit()
    except BaseException as error:
        # A full disk or an I/O error makes SQLite undo the whole transaction, not the savepoint alone: then no write of
        # the batch may be reported as done.
        if not _in_transaction(connection):
            raise
        if savepoint.is_active:
            savepoint.rollback()
        return _Outcome(error=_translated(error))
    return _Outcome(value=value)


def _translated(error: BaseException) -> BaseException:
    if isinstance(error, DBAPIError) and _is_disk_full(error):
        return ServiceError(Reason.DISK_FULL, "the disk that holds the database is full; nothing was written")
    return error


def _is_disk_full(error: DBAPIError) -> bool:
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return bool((code & 0xFF) == SQLITE_FULL)
    return "database or disk is full" in str(error.orig)


# --- SQLite ---------------------------------------------------------------------------------------------------------
def _engine(path: Path, begin: str, *, read_only: bool) -> Engine:
    engine = create_engine(
        URL.create("sqlite+pysqlite", database=str(path)), module=pysqlite3, pool_size=READERS, max_overflow=READERS
    )

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

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _in_transaction(connection: Connection) -> bool:
    driver: Any = connection.connection.driver_connection
    return bool(driver.in_transaction)


def _current_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    row = connection.execute(text("SELECT version_num FROM alembic_version")).one_or_none()
    return None if row is None else str(row.version_num)
