"""Bytes in and out: one piece in memory at a time, all file work in threads, nothing left open when a caller leaves."""

from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial

from services.grpckit.errors import FieldViolation, invalid_fields, not_found
from services.registry.blobs import store
from services.registry.library import Library, now_us
from tuneforge.names import BlobName, UploadName


async def stored_size(library: Library, name: BlobName) -> int | None:
    """Returns the size of a blob in bytes; None when the project has none such, whatever others have."""
    sizes = await library.database.read(lambda connection: store.blob_sizes(connection, name.project, [name.digest]))
    return sizes.get(name.digest)


async def receive(
    library: Library, name: UploadName, size_bytes: int, offset: int, chunks: AsyncIterator[bytes]
) -> tuple[int, bool]:
    """Takes the bytes of an upload and stores the blob when they are whole.

    Args:
        library: Where to.
        name: Project and digest.
        size_bytes: Of the whole content.
        offset: Of the first byte that comes.
        chunks: The bytes, in pieces.

    Returns:
        (bytes held, whether the blob is stored).

    Raises:
        ServiceError: `OFFSET_MISMATCH`, `DIGEST_MISMATCH`, `DISK_FULL`; and what `chunks` raises.
    """
    upload = await library.open(library.blobs.begin_upload, name.project, name.digest, size_bytes, offset)
    try:
        async for chunk in chunks:
            if chunk:
                await library.transfer(upload.append, chunk)
        is_stored = await library.transfer(upload.finish)
    finally:
        library.close_later(upload)
    if is_stored:
        add = partial(store.add_blob, project=name.project, sha256=name.digest, size_bytes=size_bytes, time_us=now_us())
        await library.database.write(add)
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
    download = await library.open(library.blobs.open, name.digest, offset)
    try:
        while chunk := await library.transfer(download.read):
            yield chunk
    finally:
        library.close_later(download)
