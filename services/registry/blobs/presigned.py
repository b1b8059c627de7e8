"""Uploads and downloads by presigned URL: which parts, how far they are, and how the whole is verified.

Where a client may have sent anything, its word counts for nothing. A content counts after the store has checked its
SHA-256 itself (sent whole, to a store that was seen to refuse wrong ones), or after the registry has read it once.
"""

import asyncio
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from services.grpckit.errors import Reason, ServiceError, not_found
from services.registry.blobs import upload_rows
from services.registry.blobs.home import new_place
from services.registry.blobs.transfers import is_whole, make_visible, place_of, stored_size
from services.registry.blobs.upload_rows import PendingUpload
from services.registry.library import Library, now_us
from tuneforge.names import BlobName, UploadName

if TYPE_CHECKING:  # a registry with a folder needs no minio
    from services.registry.blobs.s3 import S3Store
    from services.registry.blobs.s3_requests import SignedUrl

SMALLEST_BYTES = 1024 * 1024
"""Blobs up to 1 MiB go through the registry: one message is faster than URLs and their completion."""
WHOLE_BYTES = 64 * 1024 * 1024
"""Blobs up to 64 MiB are sent whole, so that the store checks their digest."""
PART_BYTES = 32 * 1024 * 1024
"""Parts of larger ones: what is lost when a connection breaks."""
MOST_PARTS = 1000
"""Parts of one blob: their URLs fit into one answer. A terabyte has parts of a gigabyte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of an upload and the way to send it."""

    number: int
    offset: int
    size_bytes: int
    signed: "SignedUrl | None"
    """None: the store has it."""


@dataclass(frozen=True, slots=True)
class Access:
    """The URLs for one blob."""

    parts: tuple[Part, ...]
    expire_time: datetime


def _expiry(store: "S3Store") -> datetime:
    return datetime.now(UTC) + timedelta(seconds=store.url_life_s)


async def read_access(library: Library, store: "S3Store", name: BlobName) -> Access:
    """Returns the URL for a stored blob.

    Raises:
        ServiceError: `BLOB_DAMAGED`: it is not known where its bytes lie.
    """
    stored = await place_of(library, name.digest)
    signed = store.read_url(stored.place)
    return Access((Part(number=1, offset=0, size_bytes=stored.size_bytes, signed=signed),), _expiry(store))


async def write_access(library: Library, store: "S3Store", name: UploadName, size_bytes: int) -> Access:
    """Begins or resumes an upload and returns what is still to be sent.

    Raises:
        ServiceError: `STORAGE_UNAVAILABLE`, `STORAGE_MISCONFIGURED`.
    """
    upload = await library.database.read(lambda c: upload_rows.find_upload(c, name.project, name.digest))
    held: set[int] | None = None
    if upload is not None:
        held = await library.transfer(_held_parts, store, upload) if upload.size_bytes == size_bytes else None
        if held is None:  # of another size, or given up by the store
            await give_up(library, store, upload)
            upload = None
        else:
            resumed = upload
            await library.database.write(lambda c: upload_rows.refresh_upload(c, resumed, time_us=now_us()))
    if upload is None:
        upload = await _begin(library, store, name, size_bytes)
        held = set()
    expire_time = _expiry(store)
    parts = await library.transfer(_parts, store, upload, held or set())
    return Access(parts, expire_time)


async def _begin(library: Library, store: "S3Store", name: UploadName, size_bytes: int) -> PendingUpload:
    place = new_place(name.digest)
    upload_id, part_bytes = "", max(size_bytes, 1)
    if size_bytes > WHOLE_BYTES:
        part_bytes = max(PART_BYTES, -(-size_bytes // MOST_PARTS))
        upload_id = await library.transfer(store.begin_parts, place)
    upload = PendingUpload(
        project=name.project,
        sha256=name.digest,
        size_bytes=size_bytes,
        place=place,
        upload_id=upload_id,
        part_bytes=part_bytes,
    )
    return await library.database.write(lambda c: upload_rows.add_upload(c, upload, time_us=now_us()))


def _held_parts(store: "S3Store", upload: PendingUpload) -> set[int] | None:
    """Returns the numbers of the parts that the store has; None when it knows nothing of the upload any more."""
    if not upload.upload_id:
        return {1} if store.holds(upload.place, upload.size_bytes) else set()
    parts = store.parts(upload.place, upload.upload_id)
    if parts is None:
        return set(range(1, upload.num_parts + 1)) if store.holds(upload.place, upload.size_bytes) else None
    return {part.number for part in parts if part.size_bytes == upload.part_size(part.number)}


def _parts(store: "S3Store", upload: PendingUpload, held: set[int]) -> tuple[Part, ...]:
    def signed(number: int) -> "SignedUrl":
        if upload.upload_id:
            return store.part_url(upload.place, upload.upload_id, number)
        return store.write_url(upload.place, upload.sha256)

    return tuple(
        Part(
            number=number,
            offset=(number - 1) * upload.part_bytes,
            size_bytes=upload.part_size(number),
            signed=None if number in held else signed(number),
        )
        for number in range(1, upload.num_parts + 1)
    )


async def give_up(library: Library, store: "S3Store", upload: PendingUpload) -> None:
    """Ends an upload that will not be completed."""
    await library.database.write(lambda c: upload_rows.give_up(c, upload, time_us=now_us()))
    if upload.upload_id:
        await library.transfer(store.abort_parts, upload.place, upload.upload_id)


class Completions:
    """Verifies uploads; calls for the same one share the work, which goes on when a caller's deadline has passed."""

    def __init__(self, library: Library, store: "S3Store") -> None:
        self._library = library
        self._store = store
        self._running: dict[UploadName, asyncio.Task[tuple[int, bool]]] = {}

    async def complete(self, name: UploadName) -> tuple[int, bool]:
        """Verifies an upload and makes it a blob of its project.

        Returns:
            (bytes held, whether the blob is stored); it is not while parts are missing.

        Raises:
            ServiceError: `NOT_FOUND`, `DIGEST_MISMATCH`, `STORAGE_UNAVAILABLE`, `STORAGE_MISCONFIGURED`.
        """
        task = self._running.get(name)
        if task is None:
            task = self._running[name] = asyncio.create_task(self._complete(name))
            task.add_done_callback(lambda _: self._running.pop(name, None))
        return await asyncio.shield(task)

    async def _complete(self, name: UploadName) -> tuple[int, bool]:
        library, store = self._library, self._store
        upload = await library.database.read(lambda c: upload_rows.find_upload(c, name.project, name.digest))
        if upload is None:
            size_bytes = await stored_size(library, BlobName(name.project, name.digest))
            if size_bytes is None:
                raise not_found("upload", name)
            return size_bytes, await is_whole(library, name.digest)
        held_bytes = await library.transfer(_join, store, upload)
        if held_bytes < upload.size_bytes:
            return held_bytes, False
        found = await library.transfer(store.checksum, upload.place) if not upload.upload_id else ""
        if not found:
            found = await library.check(_digest, store, upload)
        if found != upload.sha256:
            await give_up(library, store, upload)
            raise _mismatch(upload, found)
        await make_visible(
            library, name.project, upload.stored, also=lambda c: _take(upload_rows.remove_upload(c, upload), upload)
        )
        return upload.size_bytes, True


def _take(was_there: bool, upload: PendingUpload) -> None:
    if not was_there:
        raise ServiceError(Reason.STORAGE_UNAVAILABLE, f"the upload of blob {upload.sha256} was given up meanwhile")


def _join(store: "S3Store", upload: PendingUpload) -> int:
    """Puts the parts together when all are there; returns the bytes held."""
    if not upload.upload_id:
        return store.size(upload.place) or 0
    parts = store.parts(upload.place, upload.upload_id)
    if parts is None:  # put together by an earlier call
        return store.size(upload.place) or 0
    right = [part for part in parts if part.size_bytes == upload.part_size(part.number)]
    held_bytes = sum(part.size_bytes for part in right)
    if held_bytes == upload.size_bytes:
        store.complete_parts(upload.place, upload.upload_id, right)
    return held_bytes


def _digest(store: "S3Store", upload: PendingUpload) -> str:
    """Reads an object once and returns its digest."""
    hasher = hashlib.sha256()
    source = store.open(upload.place, 0, upload.size_bytes)
    try:
        while piece := source.read():
            hasher.update(piece)
    finally:
        source.close()
    return hasher.hexdigest()


def _mismatch(upload: PendingUpload, found: str) -> ServiceError:
    return ServiceError(
        Reason.DIGEST_MISMATCH,
        f"blob {upload.sha256}: what was sent has the digest {found}; nothing is kept, start anew",
        metadata={"expected": upload.sha256, "found": found},
    )
