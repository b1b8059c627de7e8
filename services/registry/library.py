"""What the registry's calls share: the database, the blobs, and the threads in which files are read and written.

Transfers and checks have threads of their own, so that reading a large data set does not hold up uploads.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, TypeVarTuple, Unpack

from services.grpckit.database import Database
from services.grpckit.database.answers import Answers
from services.grpckit.errors import Reason, ServiceError
from services.grpckit.logging import get_logger
from services.registry.blobs import store
from services.registry.blobs.copies import LocalCopies
from services.registry.blobs.home import CHUNK_BYTES, BlobStore
from services.registry.blobs.parts import Parts
from services.registry.blobs.store import Stored
from services.registry.datasets.examining import Examinations
from services.registry.folder import Folder
from services.registry.models.safetensors_header import LARGEST_HEADER_BYTES
from services.registry.signing.keys import Signer
from tuneforge.manifest import Manifest

if TYPE_CHECKING:
    from services.registry.blobs.s3 import S3Store


class Closes(Protocol):
    """Something that is open."""

    def close(self) -> None:
        """Ends its use; may block for a moment."""


_log = get_logger(__name__)
T = TypeVar("T")
Closable = TypeVar("Closable", bound=Closes)
Ts = TypeVarTuple("Ts")

TRANSFER_THREADS = 8
"""Pieces of uploads and downloads that are written, hashed or read at once; the disk is the limit, not these."""
CHECK_THREADS = 2
"""Files whose rows or headers are read at once; parsing holds the interpreter's lock, so more would not be faster."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Where bytes are."""

    blobs: BlobStore
    """The home of blobs."""
    parts: Parts
    """Uploads on their way through the registry."""
    objects: "S3Store | None"
    """The home, when it is one that clients can reach by URLs."""
    copies: LocalCopies
    """Files for checks, of blobs that live elsewhere."""
    upload_silence_s: float
    """Seconds without a message after which the stream of an upload is ended."""


class Library:
    """The shared parts, opened and closed together."""

    def __init__(self, database: Database, storage: Storage, signer: Signer) -> None:
        self.database = database
        self.answers = Answers(database)
        """Answers to reads that were given and still hold."""
        self.blobs = storage.blobs
        self.objects = storage.objects
        self.parts = storage.parts
        self.copies = storage.copies
        self.upload_silence_s = storage.upload_silence_s
        self.signer = signer
        """What every new version is signed with, in the transaction that makes it."""
        self._transfers = ThreadPoolExecutor(TRANSFER_THREADS, thread_name_prefix="registry-transfer")
        self._check_slots = threading.Semaphore(CHECK_THREADS)
        self.examinations = Examinations()
        """Readings of rows that go on or are done."""

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

    @asynccontextmanager
    async def fetched(
        self, manifest: Manifest, *, headers_only: bool = False, is_fresh: bool = False
    ) -> AsyncIterator[Folder]:
        """Gives the files of a manifest on the local disk, for as long as the block runs; they must not be written to.

        Args:
            manifest: Its blobs are stored, and the caller may see them.
            headers_only: Of large safetensors files only the header is there, in a file of the right size: who checks
                names and shapes needs no weights.
            is_fresh: Nothing is taken from the copies on the local disk: who looks for damage asks the store itself.

        Raises:
            ServiceError: `BLOB_DAMAGED`, `STORAGE_UNAVAILABLE`, `STORAGE_MISCONFIGURED`.
        """
        blobs = await self.stored(file.sha256 for file in manifest.files)
        heads = {
            file.sha256
            for file in manifest.files
            if headers_only and file.path.endswith(".safetensors") and self._is_far(blobs[file.sha256])
        }
        paths: dict[str, Path] = {}
        try:
            for sha256, blob in blobs.items():
                if sha256 in heads:
                    paths[sha256] = await self.check(self.copies.header, self.blobs, blob, LARGEST_HEADER_BYTES)
                else:
                    paths[sha256] = await self._copied(blob, is_fresh)
            yield Folder({file.path: paths[file.sha256] for file in manifest.files})
        finally:
            for sha256, path in paths.items():
                if sha256 in heads:
                    path.unlink(missing_ok=True)
                else:
                    self.copies.release(sha256)

    async def _copied(self, blob: Stored, is_fresh: bool) -> Path:
        try:
            return await self.check(self.copies.acquire, self.blobs, blob, is_fresh)
        except ServiceError as error:
            if error.reason is Reason.BLOB_DAMAGED:
                await self.note_reading(blob, is_whole=False)
            raise

    async def note_reading(self, stored: Stored, *, is_whole: bool) -> None:
        """Notes what a reading of all bytes of a place has shown, so that damaged ones are taken anew.

        Args:
            stored: As it was found before the reading.
            is_whole: Whether the bytes have their digest.
        """
        if stored.is_damaged is not is_whole:
            return
        if not is_whole:
            _log.error("stored bytes are damaged; the next upload of them takes their place", place=stored.place)
        time_us = None if is_whole else now_us()
        await self.database.write(lambda connection: store.note_damage(connection, stored.place, time_us=time_us))

    def _is_far(self, blob: Stored) -> bool:
        return blob.size_bytes > CHUNK_BYTES and self.blobs.local_path(blob.place) is None

    async def stored(self, digests: Iterable[str]) -> dict[str, Stored]:
        """Returns digest -> where its bytes lie, of blobs that the caller may see.

        Raises:
            ServiceError: `BLOB_DAMAGED`: of one it is not known.
        """
        wanted = list(dict.fromkeys(digests))
        found = await self.database.read(lambda connection: store.places(connection, wanted))
        if missing := [sha256 for sha256 in wanted if sha256 not in found]:
            raise ServiceError(Reason.BLOB_DAMAGED, f"it is not known where the bytes of blob {missing[0]} lie")
        return {sha256: found[sha256] for sha256 in wanted}


def now_us() -> int:
    """Returns the time in microseconds since 1970, as the store keeps it."""
    return time.time_ns() // 1000
