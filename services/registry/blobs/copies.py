"""Local copies of blobs that live elsewhere, for checks that need files: a bounded number of bytes, each verified.

    cache/<first two digits>/<sha256>           a copy; verified when it came, and again at its first use in a process
    cache/<first two digits>/<sha256>.part      one on its way; removed at a start

The copies used last are kept. While more is in use at once than the limit, it stays, and goes with its last user.
"""

import hashlib
import struct
import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from services.grpckit.errors import Reason, ServiceError
from services.registry.blobs.home import BlobStore
from services.registry.blobs.parts import NO_SPACE, disk_full
from services.registry.blobs.store import Stored
from tuneforge.manifest import sha256_file

_TRIES = 2
"""Bytes that came wrong may have been damaged on their way: they are fetched once more before the blob is given up."""


@dataclass
class _Copy:
    size_bytes: int
    users: int = 0
    is_verified: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class LocalCopies:
    """The folder of copies. Safe to use from several threads.

    Args:
        folder: The service's data folder.
        limit_bytes: Bytes of copies that are kept when nobody uses them.
    """

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        self._folder = folder / "cache"
        self._limit_bytes = limit_bytes
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Takes stock of what an earlier process left, oldest first."""
        found = []
        for path in self._folder.glob("*.header"):
            path.unlink()
        for path in self._folder.glob("*/*"):
            if path.suffix:
                path.unlink()
            else:
                status = path.stat()
                found.append((status.st_mtime, path.name, status.st_size))
        with self._lock:
            for _, name, size_bytes in sorted(found):
                self._copies[name] = _Copy(size_bytes)
            self._trim()

    def acquire(self, store: BlobStore, blob: Stored, is_fresh: bool = False) -> Path:
        """Returns a file with the bytes of a blob, to be given back with `release`; fetches it when it is missing.

        Args:
            store: Where the blob lives.
            blob: The blob.
            is_fresh: Fetches it anew in any case: what counts is what the store has now.

        Raises:
            ServiceError: `BLOB_DAMAGED`: what came, twice, is not the blob; what the store raises.
        """
        local = store.local_path(blob.place)
        if local is not None:
            return local
        with self._lock:
            copy = self._copies.setdefault(blob.sha256, _Copy(blob.size_bytes))
            copy.users += 1
            self._copies.move_to_end(blob.sha256)
        path = self._path(blob.sha256)
        try:
            with copy.lock:
                if is_fresh or not copy.is_verified:
                    if is_fresh or not (path.is_file() and sha256_file(path) == blob.sha256):
                        self._fetch(store, blob, path)
                    copy.is_verified = True
        except BaseException:
            self.release(blob.sha256)
            raise
        return path

    def release(self, sha256: str) -> None:
        """Ends one use; does nothing for a blob that was no copy."""
        with self._lock:
            if sha256 in self._copies:
                self._copies[sha256].users -= 1
                self._trim()

    def header(self, store: BlobStore, blob: Stored, largest_bytes: int) -> Path:
        """Returns a file of the blob's size that holds only the beginning of a safetensors file; the rest is a hole.

        Whoever reads the header sees what the whole file would show, and a file of many gigabytes need not be fetched.

        Args:
            store: Where the blob lives.
            blob: The blob.
            largest_bytes: Of a header that is fetched; a longer one is left out, which its reader refuses anyway.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        source = store.open(blob.place, 0, blob.size_bytes)
        try:
            head = source.read()
            wanted = 8 + min(largest_bytes, struct.unpack("<Q", head[:8])[0]) if len(head) >= 8 else 0
            with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".header", delete=False) as file:
                while head and file.tell() < wanted:
                    file.write(head)
                    head = source.read()
                file.write(head[: max(0, wanted - file.tell())])
                file.truncate(blob.size_bytes)
                return Path(file.name)
        finally:
            source.close()

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256

    def _fetch(self, store: BlobStore, blob: Stored, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        for _ in range(_TRIES):
            found = self._bring(store, blob, part)
            if found == blob.sha256:
                part.replace(path)
                return
        part.unlink()
        raise ServiceError(
            Reason.BLOB_DAMAGED,
            f"the stored bytes of blob {blob.sha256} have the digest {found}",
            metadata={"expected": blob.sha256, "found": found},
        )

    def _bring(self, store: BlobStore, blob: Stored, part: Path) -> str:
        """Writes a blob's bytes to a file and returns their digest.

        Raises:
            ServiceError: `DISK_FULL`; what the store raises.
        """
        hasher = hashlib.sha256()
        source = store.open(blob.place, 0, blob.size_bytes)
        try:
            with part.open("wb") as file:
                while piece := source.read():
                    hasher.update(piece)
                    file.write(piece)
        except OSError as error:
            part.unlink(missing_ok=True)
            if error.errno in NO_SPACE:
                raise disk_full(blob.size_bytes) from None
            raise
        finally:
            source.close()
        return hasher.hexdigest()

    def _trim(self) -> None:
        """Removes the copies that were not used for longest, down to the limit; called with the lock held."""
        total = sum(copy.size_bytes for copy in self._copies.values())
        for sha256 in [each for each, copy in self._copies.items() if not copy.users]:
            if total <= self._limit_bytes:
                return
            total -= self._copies.pop(sha256).size_bytes
            self._path(sha256).unlink(missing_ok=True)
