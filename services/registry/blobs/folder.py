"""Blobs as files below the data folder.

    blobs/<first two digits>/<sha256>.<8 digits>     whole, verified, on disk; shared by all projects

Files from before places had a suffix lie at `<sha256>` alone and stay there.
"""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

from services.grpckit.errors import Reason, ServiceError
from services.registry.blobs.home import CHUNK_BYTES, StoredObject


class BlobFolder:
    """A home of blobs on the local disk.

    Args:
        folder: The service's data folder.
    """

    def __init__(self, folder: Path) -> None:
        self._blobs = folder / "blobs"

    def prepare(self) -> None:
        """Makes the folder."""
        self._blobs.mkdir(parents=True, exist_ok=True)

    def claim(self, owner: str) -> None:
        """Does nothing: the lock on the data folder lets no other registry in."""

    def keep(self, file: Path, place: str, sha256: str) -> None:  # noqa: ARG002 - the digest is for other homes
        """Renames the file to its place; both must be on one file system."""
        destination = self._blobs / place
        destination.parent.mkdir(exist_ok=True)
        os.utime(file)  # its age counts from here: a listing must not take it for something left behind
        file.replace(destination)
        _sync_folder(destination.parent)
        _sync_folder(destination.parent.parent)

    def open(self, place: str, offset: int, size_bytes: int) -> "FileSource":
        """Opens a file for reading from an offset.

        Raises:
            ServiceError: `BLOB_DAMAGED`: it is gone, or shorter than it was.
        """
        path = self._blobs / place
        try:
            found = path.stat().st_size
            if found == size_bytes:
                return FileSource(path, offset)
        except FileNotFoundError:
            found = 0
        raise ServiceError(
            Reason.BLOB_DAMAGED,
            f"the stored file of blob {place.partition('/')[2][:64]} has {found} bytes in place of {size_bytes}",
            metadata={"found_bytes": str(found), "expected_bytes": str(size_bytes)},
        )

    def holds(self, place: str, size_bytes: int) -> bool:
        """Returns whether a file of this size is there."""
        try:
            return (self._blobs / place).stat().st_size == size_bytes
        except FileNotFoundError:
            return False

    def delete(self, place: str) -> None:
        """Removes a file, for good."""
        path = self._blobs / place
        path.unlink(missing_ok=True)
        if path.parent.exists():
            _sync_folder(path.parent)

    def listing(self) -> Iterator[StoredObject]:
        """Yields every file."""
        for path in self._blobs.glob("*/*"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            yield StoredObject(f"{path.parent.name}/{path.name}", status.st_size, status.st_mtime)

    def local_path(self, place: str) -> Path:
        """Returns where the file lies."""
        return self._blobs / place


class FileSource:
    """A stored file, open for reading in pieces."""

    def __init__(self, path: Path, offset: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._file.seek(offset)
        # A read that outlives its call must not meet a descriptor that is closed and already another file's.
        self._lock = threading.Lock()

    def read(self) -> bytes:
        """Returns the next piece, at most `CHUNK_BYTES`; empty at the end and after `close`."""
        with self._lock:
            return b"" if self._file.closed else self._file.read(CHUNK_BYTES)

    def close(self) -> None:
        """Closes the file; waits for a read that runs."""
        with self._lock:
            self._file.close()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
