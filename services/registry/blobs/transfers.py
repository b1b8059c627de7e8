"""Bytes in and out: one piece in memory at a time, all file work in threads, nothing left open when a caller leaves."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection

from services.grpckit.errors import FieldViolation, Reason, ServiceError, invalid_fields, not_found
from services.registry.blobs import store
from services.registry.blobs.home import new_place
from services.registry.blobs.store import Stored
from services.registry.library import Library, now_us
from tuneforge.names import BlobName


async def stored_size(library: Library, name: BlobName) -> int | None:
    """Returns the size of a blob in bytes; None when the project has none such, whatever others have."""
    sizes = await library.database.read(lambda connection: store.blob_sizes(connection, name.project, [name.digest]))
    return sizes.get(name.digest)


async def place_of(library: Library, sha256: str) -> Stored:
    """Returns where the bytes of a blob lie that somebody may see.

    Raises:
        ServiceError: `BLOB_DAMAGED`: nowhere.
    """
    found = await library.database.read(lambda connection: store.places(connection, [sha256]))
    if sha256 not in found:
        raise ServiceError(Reason.BLOB_DAMAGED, f"it is not known where the bytes of blob {sha256} lie")
    return found[sha256]


async def is_whole(library: Library, sha256: str) -> bool:
    """Returns whether the bytes of a stored blob are where they should be and were not found damaged; reads none."""
    found = await library.database.read(lambda connection: store.places(connection, [sha256]))
    stored = found.get(sha256)
    return stored is not None and await _is_held(library, stored)


async def _is_held(library: Library, stored: Stored) -> bool:
    return not stored.is_damaged and await library.transfer(library.blobs.holds, stored.place, stored.size_bytes)


async def make_visible(
    library: Library, project: str, stored: Stored, *, also: Callable[[Connection], None] | None = None
) -> None:
    """Makes verified bytes a blob of a project, in one transaction.

    Args:
        library: Where they are stored.
        project: Id of the project.
        stored: The bytes.
        also: What else belongs to the transaction.
    """
    found = await library.database.read(lambda connection: store.places(connection, [stored.sha256]))
    known = found.get(stored.sha256)
    damaged = known.place if known and not await _is_held(library, known) else ""

    def add(connection: Connection) -> bool:
        if also is not None:
            also(connection)
        return store.add_blob(connection, project, stored, damaged=damaged, time_us=now_us())

    if not await library.database.write(add):  # another upload was faster: its bytes count, these go at once
        await library.transfer(library.blobs.delete, stored.place)
        await library.database.write(lambda connection: store.forget_tombstone(connection, stored.place))


@dataclass(kw_only=True)
class Arrival:
    """Bytes that come to be stored."""

    project: str
    """Id of the project."""
    key: str
    """Of the part in which they are held, see `parts.py`."""
    size_bytes: int
    """Of the whole content."""
    offset: int
    """Of the first byte that comes."""
    sha256: str
    """Digest of the whole content; may be empty until the last piece has come."""


async def receive(library: Library, arrival: Arrival, chunks: AsyncIterator[bytes]) -> tuple[int, bool]:
    """Takes the bytes of an upload and stores the blob when they are whole and their digest is known.

    Args:
        library: Where to.
        arrival: What comes.
        chunks: The bytes, in pieces.

    Returns:
        (bytes held, whether the blob is stored).

    Raises:
        ServiceError: `OFFSET_MISMATCH`, `DIGEST_MISMATCH`, `DISK_FULL`; and what `chunks` raises.
    """
    begin = library.parts.begin_upload
    upload = await library.open(begin, arrival.project, arrival.key, arrival.size_bytes, arrival.offset)
    appending: asyncio.Future[None] | None = None
    is_stored = False
    try:
        async for chunk in chunks:
            if appending is not None:
                await appending
            # Hashed and written while the next piece travels; never more than one, so that memory is bounded.
            appending = asyncio.ensure_future(library.transfer(upload.append, chunk)) if chunk else None
        if appending is not None:
            await appending
        if arrival.sha256:
            stored = Stored(arrival.sha256, new_place(arrival.sha256), arrival.size_bytes)
            keep = partial(library.blobs.keep, place=stored.place, sha256=stored.sha256)
            is_stored = await library.transfer(upload.finish, arrival.sha256, keep)
    finally:
        if appending is not None and not appending.done():
            appending.add_done_callback(_forget)
        library.close_later(upload)
    if is_stored:
        await make_visible(library, arrival.project, stored)
    return upload.committed_bytes, is_stored


async def send(library: Library, name: BlobName, offset: int) -> AsyncGenerator[bytes]:
    """Yields the bytes of a blob from an offset, in pieces; to be closed, so that its file is.

    Raises:
        ServiceError: `NOT_FOUND`, `INVALID_FIELD`.
    """
    size_bytes = await stored_size(library, name)
    if size_bytes is None:
        raise not_found("blob", name)
    if not 0 <= offset <= size_bytes:
        raise invalid_fields([FieldViolation("offset", f"is {offset}; give 0 to the size of {size_bytes}")])
    stored = await place_of(library, name.digest)
    download = await library.open(library.blobs.open, stored.place, offset, size_bytes)
    reading = asyncio.ensure_future(library.transfer(download.read))
    try:
        while chunk := await reading:
            reading = asyncio.ensure_future(library.transfer(download.read))  # while this piece travels
            yield chunk
    finally:
        if not reading.done():
            reading.add_done_callback(_forget)
        library.close_later(download)


def _forget(running: "asyncio.Future[Any]") -> None:
    """Takes note of how a piece of work ended that nobody waits for any more."""
    if not running.cancelled():
        running.exception()
