"""What the registry's calls share: the database, the blobs, and the threads in which files are read and written.

Transfers and checks have threads of their own, so that reading a large data set does not hold up uploads.
"""

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar, TypeVarTuple, Unpack

from services.grpckit.database import Database
from services.registry.blobs.folder import BlobFiles
from services.registry.datasets import files
from services.registry.models.files import Folder
from tuneforge.manifest import Manifest

if TYPE_CHECKING:
    from tuneforge.data.rows import FileReport


class Closes(Protocol):
    """Something that is open."""

    def close(self) -> None:
        """Ends its use; may block for a moment."""


T = TypeVar("T")
Closable = TypeVar("Closable", bound=Closes)
Ts = TypeVarTuple("Ts")

TRANSFER_THREADS = 8
"""Pieces of uploads and downloads that are written, hashed or read at once; the disk is the limit, not these."""
CHECK_THREADS = 2
"""Files whose rows or headers are read at once; parsing holds the interpreter's lock, so more would not be faster."""
REPORTS_KEPT = 256
"""Reports on data files kept in memory, so that a call repeated after its deadline finds the work done."""


class Library:
    """The shared parts, opened and closed together."""

    def __init__(self, database: Database, blobs: BlobFiles) -> None:
        self.database = database
        self.blobs = blobs
        self._transfers = ThreadPoolExecutor(TRANSFER_THREADS, thread_name_prefix="registry-transfer")
        self._check_slots = threading.Semaphore(CHECK_THREADS)
        self._reports: OrderedDict[str, asyncio.Future[FileReport]] = OrderedDict()

    def close(self) -> None:
        """Ends the threads and closes the database; blocks until running pieces of transfers are done."""
        self._transfers.shutdown(wait=True)
        self.database.close()

    async def transfer(self, run: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        """Runs a short piece of file work in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._transfers, run, *args)

    async def open(self, run: Callable[[Unpack[Ts]], Closable], *args: *Ts) -> Closable:
        """Opens something in a thread; when the caller is cancelled meanwhile, it is closed again."""
        opening = asyncio.get_running_loop().run_in_executor(self._transfers, run, *args)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(self._close_again)
            raise

    def _close_again(self, opening: "asyncio.Future[Closable]") -> None:
        if not opening.cancelled() and opening.exception() is None:
            self.close_later(opening.result())

    def close_later(self, opened: "Closes") -> None:
        """Closes something in a thread without waiting, since the call that used it may have been cancelled."""
        try:
            self._transfers.submit(opened.close)
        except RuntimeError:  # the threads have ended with the service
            opened.close()

    async def check(self, run: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        """Runs a long reading of files in a thread that does not keep the process from ending."""
        future: Future[T] = Future()

        def work() -> None:
            with self._check_slots:
                if not future.set_running_or_notify_cancel():
                    return
                try:
                    future.set_result(run(*args))
                except BaseException as error:  # noqa: BLE001 - it belongs to the caller, who waits in another thread
                    future.set_exception(error)

        threading.Thread(target=work, name="registry-check", daemon=True).start()
        return await asyncio.wrap_future(future)

    async def report_on(self, sha256: str) -> "FileReport":
        """Returns what is to be said of the rows of a stored file; calls for the same file share one reading."""
        future = self._reports.get(sha256)
        if future is None:
            future = asyncio.ensure_future(self.check(files.read_file, self.blobs.path(sha256)))
            self._reports[sha256] = future
            if len(self._reports) > REPORTS_KEPT:
                self._reports.popitem(last=False)
        self._reports.move_to_end(sha256)
        try:
            return await asyncio.shield(future)  # a caller that leaves does not end it for the others
        except Exception:
            self._reports.pop(sha256, None)
            raise

    @asynccontextmanager
    async def fetched(self, manifest: Manifest) -> AsyncIterator[Folder]:
        """Gives the files of a manifest on the local disk, for as long as the block runs."""
        yield Folder({file.path: self.blobs.path(file.sha256) for file in manifest.files})


def now_us() -> int:
    """Returns the time in microseconds since 1970, as the store keeps it."""
    return time.time_ns() // 1000
