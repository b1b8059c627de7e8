"""Reads what is stored, and notes whether it is still what was verified: damaged bytes are not relied on any more.

Only what the registry has read itself counts. A mark is of a place: bytes that come anew get another one, without it.
"""

import asyncio
import errno
import hashlib

from services.grpckit.errors import Reason, ServiceError, not_found
from services.registry.blobs import store
from services.registry.blobs.store import Stored
from services.registry.blobs.transfers import stored_size
from services.registry.library import Library
from tuneforge.names import BlobName

UNREADABLE = frozenset({errno.EIO, errno.ENOENT, errno.EBADMSG})
"""How a system says that it cannot give back what was stored; anything else is no fault of the bytes."""


class BlobChecks:
    """Checks of stored bytes; calls for the same content share one reading, which a caller who leaves does not end."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._running: dict[str, asyncio.Task[str]] = {}

    async def problem(self, name: BlobName) -> str:
        """Reads the stored bytes of a blob; returns what is wrong with them as a sentence, empty when nothing is.

        Raises:
            ServiceError: `NOT_FOUND`, `STORAGE_UNAVAILABLE`, `STORAGE_MISCONFIGURED`.
        """
        if await stored_size(self._library, name) is None:
            raise not_found("blob", name)
        task = self._running.get(name.digest)
        if task is None:
            task = self._running[name.digest] = asyncio.create_task(self._check(name.digest))
            task.add_done_callback(lambda _: self._running.pop(name.digest, None))
        return await asyncio.shield(task)

    async def _check(self, sha256: str) -> str:
        library = self._library
        stored = (await library.database.read(lambda c: store.places(c, [sha256]))).get(sha256)
        if stored is None:
            return f"it is not known where the bytes of blob {sha256} lie"
        problem = ""
        try:
            found = await library.check(_digest, library, stored)
            if found != sha256:
                problem = f"the stored bytes of blob {sha256} have the digest {found}"
        except ServiceError as error:
            if error.reason is not Reason.BLOB_DAMAGED:
                raise
            problem = error.message
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
            problem = f"the stored bytes of blob {sha256} cannot be read: {error.strerror}"
        await library.note_reading(stored, is_whole=not problem)
        return problem


def _digest(library: Library, stored: Stored) -> str:
    hasher = hashlib.sha256()
    source = library.blobs.open(stored.place, 0, stored.size_bytes)
    try:
        while piece := source.read():
            hasher.update(piece)
    finally:
        source.close()
    return hasher.hexdigest()
