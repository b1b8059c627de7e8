"""Uploads that come through the registry: files of their own until they are whole and verified.

    uploads/<project>/<sha256>.part              what has arrived; left by a killed process, it is gone on with or swept
    uploads/<project>/<id>.<principal>.part      the same, of an upload whose digest comes last

A part is known by its key, which is what stands before `.part`. It belongs to one project, so no project learns from an
upload what another one has stored. When it is whole, a blob store takes it: a rename in a folder, a copy into S3. All
functions block; `library.py` runs them in threads.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from services.grpckit.errors import Reason, ServiceError
from services.registry.blobs.home import CHUNK_BYTES

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""How a system says that a file has no room."""

_SYNC_BYTES = 32 * 1024 * 1024
"""Bytes after which the disk is made to take what has come, beside: all at once at the end it would hold up the caller,
and every commit to the database."""


@dataclass
class _Part:
    """What the streams that send the same part share; only touched with `lock` held."""

    path: Path
    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    turn: int = 0
    """Number of the stream that may write: the newest one, so that a retry wins over a stream that hangs."""
    hashed_bytes: int = 0
    hasher: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def discard(self) -> None:
        """Removes what has arrived; streams that still write are no longer the newest."""
        self.path.unlink(missing_ok=True)
        self.turn += 1
        self.hashed_bytes, self.hasher = 0, hashlib.sha256()

    def hash_up_to(self, size_bytes: int) -> None:
        """Brings the hash to the bytes on disk, reading them after a restart of the process."""
        if self.hashed_bytes == size_bytes:
            return
        self.hashed_bytes, self.hasher = 0, hashlib.sha256()
        with self.path.open("rb") as file:
            while piece := file.read(CHUNK_BYTES):
                self.hasher.update(piece)
                self.hashed_bytes += len(piece)


class Parts:
    """The folder of uploads that are not whole.

    Args:
        folder: The service's data folder.
        reserve_bytes: Space on the disk that uploads leave free, for the database.
    """

    def __init__(self, folder: Path, *, reserve_bytes: int) -> None:
        self._uploads = folder / "uploads"
        self._reserve_bytes = reserve_bytes
        self._lock = threading.Lock()
        self._parts: dict[Path, _Part] = {}

    def prepare(self) -> None:
        """Makes the folder."""
        self._uploads.mkdir(parents=True, exist_ok=True)

    def sweep(self, project: str, older_than_s: float) -> list[int]:
        """Removes a project's parts that nobody has added to for long; returns their sizes in bytes.

        Args:
            project: Its id.
            older_than_s: Age in seconds from which on a part is removed.
        """
        oldest = time.time() - older_than_s
        swept = []
        for path in (self._uploads / project).glob("*.part"):
            with self._lock:
                if path in self._parts:  # a stream has it open
                    continue
                try:
                    status = path.stat()
                except FileNotFoundError:  # an upload ended, or another collector was here
                    continue
                if status.st_mtime < oldest:
                    path.unlink()
                    swept.append(status.st_size)
        return swept

    def projects(self) -> list[str]:
        """Returns the ids of projects that have sent parts."""
        return sorted(folder.name for folder in self._uploads.iterdir() if folder.is_dir())

    def committed_bytes(self, project: str, key: str) -> int:
        """Returns how much of an unfinished upload is held."""
        return _held_bytes(self._uploads / project / f"{key}.part")

    def begin_upload(self, project: str, key: str, size_bytes: int, offset: int) -> "Upload":
        """Begins or resumes an upload, to be closed; a stream that sends the same part already has to stop.

        Args:
            project: Id of the project.
            key: Of the part.
            size_bytes: Size that the content must have.
            offset: First byte that will be appended.

        Raises:
            ServiceError: `OFFSET_MISMATCH`, `DIGEST_MISMATCH` when more is held than the size, `DISK_FULL`.
        """
        part = self._hold(project, key)
        upload = Upload(part, size_bytes, lambda: self._let_go(part))
        try:
            upload.begin(offset, shutil.disk_usage(self._uploads).free - self._reserve_bytes)
        except BaseException:
            upload.close()
            raise
        return upload

    def _hold(self, project: str, key: str) -> _Part:
        path = self._uploads / project / f"{key}.part"
        with self._lock:
            part = self._parts.setdefault(path, _Part(path))
            part.users += 1
            return part

    def _let_go(self, part: _Part) -> None:
        with self._lock:
            part.users -= 1
            if not part.users:
                del self._parts[part.path]


class Upload:
    """One stream's hold on a part; made by `Parts.begin_upload`, and to be closed."""

    def __init__(self, part: _Part, size_bytes: int, let_go: Callable[[], None]) -> None:
        self._part = part
        self._size_bytes = size_bytes
        self._let_go: Callable[[], None] | None = let_go
        self._file: BinaryIO | None = None
        self._turn = 0
        self._syncing: threading.Thread | None = None
        self._synced_bytes = 0
        self.committed_bytes = 0
        """Bytes held."""

    def begin(self, offset: int, free_bytes: int) -> None:
        """Takes the part over; see `Parts.begin_upload`."""
        part = self._part
        with part.lock:
            held = _held_bytes(part.path)
            if held > self._size_bytes:
                part.discard()
                raise self._mismatch(f"{held} bytes were sent earlier, but its size is given as {self._size_bytes}")
            if offset != held:
                raise ServiceError(
                    Reason.OFFSET_MISMATCH,
                    f"the upload goes on at {held}, not at {offset}",
                    metadata={"committed_bytes": str(held)},
                )
            if self._size_bytes - held > free_bytes:
                raise disk_full(self._size_bytes - held)
            part.path.parent.mkdir(parents=True, exist_ok=True)
            part.hash_up_to(held)
            part.turn += 1
            self._turn = part.turn
            self._file = part.path.open("ab", buffering=0)
            self.committed_bytes = held

    def append(self, data: bytes) -> None:
        """Adds bytes.

        Raises:
            ServiceError: `OFFSET_MISMATCH` when another stream has taken the part over, `DIGEST_MISMATCH` when it is
                more than the announced size, `DISK_FULL`; what was held before is still held.
        """
        part = self._part
        with part.lock:
            file = self._mine()
            if self.committed_bytes + len(data) > self._size_bytes:
                part.discard()
                raise self._mismatch(f"more bytes were sent than its size of {self._size_bytes}")
            try:
                left = memoryview(data)
                while left:
                    left = left[file.write(left) :]
            except OSError as error:
                file.truncate(self.committed_bytes)
                if error.errno in NO_SPACE:
                    raise disk_full(len(data)) from None
                raise
            part.hasher.update(data)
            part.hashed_bytes += len(data)
            self.committed_bytes += len(data)
            self._sync_beside()

    def finish(self, sha256: str, keep: Callable[[Path], None]) -> bool:
        """Gives the part to a store when all its bytes are there; returns whether they are.

        Args:
            sha256: Digest that the content must have.
            keep: Takes the verified file, which lies on disk whole and synced; what it leaves there is removed.

        Raises:
            ServiceError: `DIGEST_MISMATCH`: the content is another one; nothing is kept. What `keep` raises: the part
                stays, and may be finished later.
        """
        part = self._part
        with part.lock:
            file = self._mine()
            if self.committed_bytes < self._size_bytes:
                return False
            found = part.hasher.hexdigest()
            if found != sha256:
                part.discard()
                raise self._mismatch(f"its content has the digest {found}, not {sha256}", expected=sha256, found=found)
            os.fsync(file.fileno())
            keep(part.path)
            part.discard()
            return True

    def close(self) -> None:
        """Ends the stream's hold; what was appended is kept. Waits for an append that runs."""
        with self._part.lock:
            if self._file is not None:
                self._file.close()
                self._file = None
        if self._let_go is not None:
            self._let_go()
            self._let_go = None

    def _sync_beside(self) -> None:
        if self.committed_bytes - self._synced_bytes < _SYNC_BYTES or (self._syncing and self._syncing.is_alive()):
            return
        self._synced_bytes = self.committed_bytes
        self._syncing = threading.Thread(target=_sync, args=(self._part.path,), name="registry-sync", daemon=True)
        self._syncing.start()

    def _mine(self) -> BinaryIO:
        if self._turn != self._part.turn or self._file is None:
            raise ServiceError(
                Reason.OFFSET_MISMATCH,
                "another stream has gone on with this upload",
                metadata={"committed_bytes": str(_held_bytes(self._part.path))},
            )
        return self._file

    def _mismatch(self, problem: str, **metadata: str) -> ServiceError:
        return ServiceError(
            Reason.DIGEST_MISMATCH,
            f"upload {self._part.path.stem}: {problem}; nothing is kept, start at 0",
            metadata=metadata,
        )


def disk_full(needed_bytes: int) -> ServiceError:
    """Returns the error for bytes that the local disk has no room for."""
    return ServiceError(
        Reason.DISK_FULL,
        f"the registry's disk has no room for {needed_bytes} more bytes",
        metadata={"needed_bytes": str(needed_bytes)},
    )


def _sync(path: Path) -> None:
    """Syncs a file that may be gone; what the disk refuses is told by the sync at the end, through the writer."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _held_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
