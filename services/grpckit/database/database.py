"""A service's database as its code sees it: `read` and `write` with plain functions that get a connection.

There is no ORM and no asyncio engine. Writes that wait while a commit runs share the next one (group commit); one that
fails does not take its neighbours along. What is special to a kind of database is in
`sqlite.py` and `postgres.py`; stores use SQLAlchemy Core and know neither.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import DBAPIError

from services.grpckit.database.address import PostgresAddress
from services.grpckit.database.backend import READERS, Backend, SchemaTooNew
from services.grpckit.database.sqlite import Sqlite
from services.grpckit.database.writer import Rank, Writer
from services.grpckit.errors import Reason, ServiceError
from services.grpckit.folder_lock import FolderLock, FolderLocked, StartDelayed, StartRefused

T = TypeVar("T")

ELSEWHERE = "database"
"""File in the data folder that names the server with its metadata, so that a start without the setting is noticed."""


class Database:
    """The database of one service, owned by one process.

    Args:
        path: The SQLite file; its folder is locked while the database is open, wherever the database is.
        migrations: Folder of the service's Alembic revisions (holds `versions/`).
        schema_head: Newest revision in that folder, as a constant of the service, so that a start with the schema in
            place need not read the folder.
        service: Name of the service, which the database keeps: one that belongs to another is refused.
        postgres: The database on a server that is used in place of the file.
        stands_by: On a server, where another process has the database, `open` gives a reader of it, and `try_to_lead`
            makes it the writer once that process is gone.
    """

    def __init__(
        self,
        path: Path,
        *,
        migrations: Path,
        schema_head: str,
        service: str = "",
        postgres: PostgresAddress | None = None,
        stands_by: bool = False,
    ) -> None:
        self._path = path
        self._migrations = migrations
        self._schema_head = schema_head
        self._service = service
        self._postgres = postgres
        self._stands_by = stands_by and postgres is not None
        self._leading = threading.Lock()
        self._lock = FolderLock(path.parent)
        self._backend: Backend | None = None
        self._writer: Writer | None = None
        self._reader: Engine | None = None
        self._threads: ThreadPoolExecutor | None = None

    @property
    def commits(self) -> int:
        """Transactions of the writer since the start, the failed ones among them."""
        return self._writer.commits if self._writer else 0

    @property
    def changes(self) -> int:
        """Those of them that may have changed what is answered; see `write`."""
        return self._writer.changes if self._writer else 0

    @property
    def longest_belief_s(self) -> float:
        """Seconds for which what was read may be believed while `changes` stays the same; see `answers.py`."""
        return self._backend.longest_belief_s if self._backend else 0.0

    # --- life -----------------------------------------------------------------------------------------------------
    def open(self) -> None:
        """Locks the folder, brings the schema to its head and starts the threads.

        Raises:
            FolderLocked: another process uses the folder or the database.
            SchemaTooNew: the database belongs to a newer release; nothing in it was changed.
            StartRefused: the database cannot or must not be used.
        """
        self._lock.acquire()
        backend = self._backend = self._make_backend()
        connection: Connection | None = None
        try:
            self._stay_where_the_data_is()
            connection = self._open_writer(backend)
            if connection is not None:
                self._bring_to_head(backend, connection)
            if self._postgres is not None:
                self._path.with_name(ELSEWHERE).write_text(f"{self._postgres}\n")
            self._reader = backend.open_readers()
            if connection is None:
                self._require_head()
        except BaseException as error:
            if connection is not None:
                connection.close()
            self._release()
            if isinstance(error, DBAPIError):
                raise backend.refusal(error) from error
            raise
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="database-reader")
        if connection is not None:
            self._writer = Writer(backend, connection)
            self._writer.start()

    def _open_writer(self, backend: Backend) -> Connection | None:
        """Returns the writer's connection; None: another process has it, and this one stands by.

        Raises:
            FolderLocked: another process has it.
        """
        try:
            return backend.open_writer()
        except FolderLocked:
            if not self._stands_by:
                raise
            return None

    def _require_head(self) -> None:
        """Refuses to stand by beside another release: what it writes may not be read here.

        Raises:
            StartDelayed: the schema is not this release's.
        """
        found = self.read_sync(_current_revision)
        if found != self._schema_head:
            raise StartDelayed(
                f"another process of another release has the database (schema {found}, here {self._schema_head}); "
                "start this one again when that one has ended"
            )

    @property
    def is_leading(self) -> bool:
        """Whether this process is the one that writes."""
        return self._writer is not None

    @property
    def is_displaced(self) -> bool:
        """Whether another process has become the writer while this one did not answer."""
        return self._writer is not None and self._writer.is_displaced

    def try_to_lead(self) -> bool:
        """Becomes the writer if nobody else is; waits a moment for it. For one that stands by.

        Raises:
            StartRefused: the database must not be used.
        """
        with self._leading:
            backend = self._backend
            if backend is None or self._writer is not None:
                return self._writer is not None
            try:
                connection = self._open_writer(backend)
            except DBAPIError as error:
                if backend.is_lost(error):
                    return False
                raise backend.refusal(error) from error
            if connection is None:
                return False
            self._bring_to_head(backend, connection)
            self._writer = Writer(backend, connection)
            self._writer.start()
            return True

    def close(self) -> None:
        """Finishes the queued writes, then closes everything; a second call does nothing."""
        with self._leading:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            if self._threads is not None:
                self._threads.shutdown(wait=True)
                self._threads = None
            self._release()

    def _release(self) -> None:
        if self._backend is not None:
            self._backend.close()
            self._backend = None
        self._lock.release()

    def _make_backend(self) -> Backend:
        if self._postgres is None:
            return Sqlite(self._path)
        from services.grpckit.database.postgres import Postgres  # the driver is only for those who use it

        return Postgres(self._postgres, is_shared=self._stands_by)

    def _stay_where_the_data_is(self) -> None:
        """Refuses to begin anew in one kind of database when the folder's data is in the other."""
        note = self._path.with_name(ELSEWHERE)
        setting = f"TUNEFORGE_{(self._service or '<SERVICE>').upper()}_DATABASE_URL"
        if self._postgres is None:
            if note.exists():
                raise StartRefused(
                    f"the data of {self._path.parent} is in {note.read_text().strip()}, but {setting} is not set; set "
                    f"it, or remove {note} to begin anew with SQLite"
                )
        elif self._path.exists():
            raise StartRefused(
                f"{setting} is set, but the data of this folder is in {self._path}; unset it, or move that file away "
                "to begin anew on the server"
            )

    def _bring_to_head(self, backend: Backend, connection: Connection) -> None:
        with connection.begin():
            current = _current_revision(connection)
        if current == self._schema_head:
            backend.claim(connection, self._service)
            return
        from services.grpckit import migrations

        if current is not None and current not in migrations.known_revisions(self._migrations):
            raise SchemaTooNew(
                f"{backend.place} has schema {current}, which is newer than {self._schema_head}, the newest that this "
                "release knows; start the release that wrote it, or set TUNEFORGE_DATA to another folder"
            )
        backend.claim(connection, self._service)
        with backend.without_limits(connection):
            migrations.upgrade(connection, self._migrations, current)

    # --- use ------------------------------------------------------------------------------------------------------
    async def write(self, run: Callable[[Connection], T], *, rank: Rank = Rank.USUAL, is_unseen: bool = False) -> T:
        """Runs a function in a write transaction and returns what it returned, once that is on disk.

        The function runs on the writer thread: it must be quick, do nothing but SQL, and be free of effects outside the
        database, because a later failure of the commit undoes it, and a lost connection, or a neighbour that fails,
        makes it run again. An exception undoes this write alone. It must not go on after an `IntegrityError`: look
        before you insert.

        Prompt writes go before the usual ones, and patient ones after them. An unseen write changes nothing that an
        answer of `answers.py` is made from, so they stay.

        A caller that is cancelled while the write is queued withdraws it; one that already runs is finished.

        Raises:
            ServiceError: `DISK_FULL`: nothing was written. `DATABASE_UNAVAILABLE`: ask again with the same request id.
        """
        return await asyncio.wrap_future(self._submit(run, rank=rank, is_unseen=is_unseen))

    def write_sync(self, run: Callable[[Connection], T]) -> T:
        """Does what `write` does from a thread without an event loop."""
        return self._submit(run).result()

    async def read(self, run: Callable[[Connection], T]) -> T:
        """Runs a function in a reader thread on one snapshot of what is committed; it cannot write.

        Raises:
            ServiceError: `DATABASE_UNAVAILABLE`.
        """
        if self._threads is None:
            raise RuntimeError("the database is not open")
        return await asyncio.wrap_future(self._threads.submit(self.read_sync, run))

    def read_sync(self, run: Callable[[Connection], T]) -> T:
        """Does what `read` does from a thread without an event loop."""
        backend = self._backend
        if backend is None or self._reader is None:
            raise RuntimeError("the database is not open")
        try:
            try:
                return self._read_once(run)
            except DBAPIError as error:
                if not backend.is_lost(error):
                    raise
            # The server was restarted, and what the pool kept is of no use: a read may simply run again.
            return self._read_once(run)
        except DBAPIError as error:
            answer = backend.answer(error, is_read=True)
            if answer is None:
                raise
            raise answer from error

    def _read_once(self, run: Callable[[Connection], T]) -> T:
        assert self._reader is not None
        with self._reader.connect() as connection, connection.begin():
            return run(connection)

    def _submit(self, run: Callable[[Connection], T], *, rank: Rank = Rank.USUAL, is_unseen: bool = False) -> Future[T]:
        if self._writer is None:
            if self._stands_by and self._backend is not None:
                raise ServiceError(Reason.STANDBY, "another process leads on this database; this one stands by")
            raise RuntimeError("the database is not open")
        return self._writer.submit(run, rank=rank, is_unseen=is_unseen)


def _current_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    row = connection.execute(text("SELECT version_num FROM alembic_version")).one_or_none()
    return None if row is None else str(row.version_num)
