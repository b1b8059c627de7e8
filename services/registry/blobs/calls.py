"""The methods by which bytes come and go."""
# ruff: noqa: ARG002 - gRPC gives every method a context; who calls is in services.grpckit.context instead

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing

from services.grpckit.context import current, require_project
from services.grpckit.errors import FieldViolation, Reason, ServiceError, invalid_fields, not_found
from services.registry.blobs import presigned, requests, store, transfers, wire
from services.registry.blobs.checking import BlobChecks
from services.registry.blobs.home import CHUNK_BYTES
from services.registry.calls import Calls, Context
from services.registry.library import Library, now_us
from tuneforge.names import BlobName, UploadName
from tuneforge.v1 import blobs_pb2


class BlobCalls(Calls):
    """The methods by which bytes come and go."""

    def __init__(self, library: Library) -> None:
        super().__init__(library)
        objects = library.objects
        self._checks = BlobChecks(library)
        self._completions = presigned.Completions(library, objects) if objects is not None else None

    async def GetBlobAccess(self, request: blobs_pb2.GetBlobAccessRequest, context: Context) -> blobs_pb2.BlobAccess:
        """Tells how to move the bytes of one blob."""
        is_write = request.direction == blobs_pb2.BLOB_DIRECTION_WRITE
        if not is_write and request.direction != blobs_pb2.BLOB_DIRECTION_READ:
            raise invalid_fields([FieldViolation("direction", f"is {request.direction}; give READ or WRITE")])
        if is_write:
            requests.check_blob_size(request.size_bytes)
            if "/uploads/" in request.name:
                return await self._unnamed(UploadName.parse(request.name), request)
        name = BlobName.parse(request.name)
        stored = await transfers.stored_size(self._library, name)
        if stored is None and not is_write:
            raise not_found("blob", name)
        if is_write and stored is not None:
            stored = await self._relied_on(name, stored)
        access = blobs_pb2.BlobAccess(
            name=request.name, size_bytes=request.size_bytes if stored is None else stored, is_stored=stored is not None
        )
        objects = self._library.objects
        by_urls = self._goes_by_urls(request.way, access.size_bytes)
        if objects is None or not by_urls or (is_write and stored is not None):
            access.stream.CopyFrom(await self._stream(name, stored, is_write=is_write))
        elif is_write:
            upload = UploadName(name.project, name.digest)
            urls = await presigned.write_access(self._library, objects, upload, request.size_bytes)
            access.presigned.CopyFrom(wire.presigned_to_proto(urls, upload=str(upload)))
        else:
            urls = await presigned.read_access(self._library, objects, name)
            access.presigned.CopyFrom(wire.presigned_to_proto(urls))
        return access

    async def _unnamed(self, name: UploadName, request: blobs_pb2.GetBlobAccessRequest) -> blobs_pb2.BlobAccess:
        """Tells how to send bytes whose digest is not known yet."""
        held = await self._library.transfer(self._library.parts.committed_bytes, name.project, _key(name))
        read, size_bytes = self._database.read, request.size_bytes
        return blobs_pb2.BlobAccess(
            name=request.name,
            size_bytes=size_bytes,
            stream=blobs_pb2.BlobStream(upload=request.name, committed_bytes=held, chunk_bytes=CHUNK_BYTES),
            needs_digest=self._goes_by_urls(request.way, size_bytes)
            or (not held and await read(lambda c: store.has_size(c, name.project, size_bytes))),
        )

    def _goes_by_urls(self, way: blobs_pb2.BlobWay.ValueType, size_bytes: int) -> bool:
        is_wanted = way == blobs_pb2.BLOB_WAY_PRESIGNED and size_bytes > presigned.SMALLEST_BYTES
        return is_wanted and self._library.objects is not None

    async def _relied_on(self, name: BlobName, size_bytes: int) -> int | None:
        """Notes that the caller relies on a stored blob; returns None when its bytes are gone and have to come anew."""
        if not await transfers.is_whole(self._library, name.digest):
            return None
        await self._database.write(lambda c: store.touch(c, name.project, name.digest, time_us=now_us()))
        return size_bytes

    async def _stream(self, name: BlobName, stored: int | None, *, is_write: bool) -> blobs_pb2.BlobStream:
        stream = blobs_pb2.BlobStream(chunk_bytes=CHUNK_BYTES)
        if is_write:
            stream.upload = str(UploadName(name.project, name.digest))
            stream.committed_bytes = (
                await self._library.transfer(self._library.parts.committed_bytes, name.project, name.digest)
                if stored is None
                else stored
            )
        return stream

    async def CompleteUpload(
        self, request: blobs_pb2.CompleteUploadRequest, context: Context
    ) -> blobs_pb2.UploadBlobResponse:
        """Verifies what was sent by URL and stores the blob."""
        name = UploadName.parse(request.name)
        if self._completions is None or not name.digest:
            raise not_found("upload", name)
        committed_bytes, is_stored = await self._completions.complete(name)
        return blobs_pb2.UploadBlobResponse(
            name=str(BlobName(name.project, name.digest)), committed_bytes=committed_bytes, is_stored=is_stored
        )

    async def CheckBlob(self, request: blobs_pb2.CheckBlobRequest, context: Context) -> blobs_pb2.CheckBlobResponse:
        """Reads a stored blob and tells whether it is whole."""
        problem = await self._checks.problem(BlobName.parse(request.name))
        return blobs_pb2.CheckBlobResponse(name=request.name, is_whole=not problem, problem=problem)

    async def UploadBlob(
        self, request_iterator: AsyncIterator[blobs_pb2.UploadBlobRequest], context: Context
    ) -> blobs_pb2.UploadBlobResponse:
        """Takes the bytes of a blob."""
        messages = _heard(aiter(request_iterator), self._library.upload_silence_s)
        first = await anext(messages, blobs_pb2.UploadBlobRequest())
        name = requests.upload_of(first.upload, first.size_bytes, first.offset)
        require_project(name.project)
        arrival = transfers.Arrival(
            project=name.project,
            key=_key(name),
            size_bytes=first.size_bytes,
            offset=first.offset,
            sha256=name.digest,
        )
        chunks = _chunks(first, messages, arrival)
        committed_bytes, is_stored = await transfers.receive(self._library, arrival, chunks)
        blob = str(BlobName(name.project, arrival.sha256)) if arrival.sha256 else ""
        return blobs_pb2.UploadBlobResponse(name=blob, committed_bytes=committed_bytes, is_stored=is_stored)

    async def DownloadBlob(
        self, request: blobs_pb2.DownloadBlobRequest, context: Context
    ) -> AsyncIterator[blobs_pb2.DownloadBlobResponse]:
        """Sends the bytes of a blob."""
        async with aclosing(transfers.send(self._library, BlobName.parse(request.name), request.offset)) as chunks:
            async for data in chunks:
                yield blobs_pb2.DownloadBlobResponse(data=data)


async def _heard(
    messages: AsyncIterator[blobs_pb2.UploadBlobRequest], silence_s: float
) -> AsyncIterator[blobs_pb2.UploadBlobRequest]:
    """Yields messages as they come; ends the call when none does for so long."""
    while True:
        try:
            async with asyncio.timeout(silence_s):
                message = await anext(messages, None)
        except TimeoutError:
            raise ServiceError(
                Reason.UPLOAD_SILENT,
                f"nothing came for {silence_s:g} s, so the stream was ended; what arrived is kept",
                metadata={"silence_s": f"{silence_s:g}"},
            ) from None
        if message is None:
            return
        yield message


def _key(name: UploadName) -> str:
    """Returns the key of the part of an upload: what has no digest is its caller's own."""
    if name.digest:
        return name.digest
    return f"{name.upload}.{hashlib.sha256(current().principal.name.encode()).hexdigest()[:16]}"


async def _chunks(
    first: blobs_pb2.UploadBlobRequest,
    rest: AsyncIterator[blobs_pb2.UploadBlobRequest],
    arrival: transfers.Arrival,
) -> AsyncIterator[bytes]:
    requests.check_chunk(first, arrival.sha256)
    arrival.sha256 = arrival.sha256 or first.sha256
    yield first.data
    async for message in rest:
        requests.check_chunk(message, arrival.sha256)
        arrival.sha256 = arrival.sha256 or message.sha256
        yield message.data
