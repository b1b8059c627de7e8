"""The methods by which bytes come and go."""
# ruff: noqa: ARG002 - gRPC gives every method a context; who calls is in services.grpckit.context instead

from collections.abc import AsyncIterator
from contextlib import aclosing

from services.grpckit.context import require_project
from services.grpckit.errors import FieldViolation, invalid_fields, not_found
from services.registry.blobs import requests, transfers
from services.registry.blobs.home import CHUNK_BYTES
from services.registry.calls import Calls, Context
from tuneforge.names import BlobName, UploadName
from tuneforge.v1 import blobs_pb2


class BlobCalls(Calls):
    """The methods by which bytes come and go."""

    async def GetBlobAccess(self, request: blobs_pb2.GetBlobAccessRequest, context: Context) -> blobs_pb2.BlobAccess:
        """Tells how to move the bytes of one blob."""
        name = BlobName.parse(request.name)
        is_write = request.direction == blobs_pb2.BLOB_DIRECTION_WRITE
        if not is_write and request.direction != blobs_pb2.BLOB_DIRECTION_READ:
            raise invalid_fields([FieldViolation("direction", f"is {request.direction}; give READ or WRITE")])
        if is_write:
            requests.check_blob_size(request.size_bytes)
        stored = await transfers.stored_size(self._library, name)
        if stored is None and not is_write:
            raise not_found("blob", name)
        stream = blobs_pb2.BlobStream(chunk_bytes=CHUNK_BYTES)
        if is_write:
            stream.upload = str(UploadName(name.project, name.digest))
            stream.committed_bytes = (
                await self._library.transfer(self._library.parts.committed_bytes, name.project, name.digest)
                if stored is None
                else stored
            )
        size_bytes = request.size_bytes if stored is None else stored
        return blobs_pb2.BlobAccess(
            name=request.name, size_bytes=size_bytes, stream=stream, is_stored=stored is not None
        )

    async def UploadBlob(
        self, request_iterator: AsyncIterator[blobs_pb2.UploadBlobRequest], context: Context
    ) -> blobs_pb2.UploadBlobResponse:
        """Takes the bytes of a blob."""
        messages = aiter(request_iterator)
        first = await anext(messages, blobs_pb2.UploadBlobRequest())
        name = requests.upload_of(first.upload, first.size_bytes, first.offset)
        require_project(name.project)
        committed_bytes, is_stored = await transfers.receive(
            self._library, name, first.size_bytes, first.offset, _chunks(first, messages)
        )
        return blobs_pb2.UploadBlobResponse(
            name=str(BlobName(name.project, name.digest)), committed_bytes=committed_bytes, is_stored=is_stored
        )

    async def DownloadBlob(
        self, request: blobs_pb2.DownloadBlobRequest, context: Context
    ) -> AsyncIterator[blobs_pb2.DownloadBlobResponse]:
        """Sends the bytes of a blob."""
        async with aclosing(transfers.send(self._library, BlobName.parse(request.name), request.offset)) as chunks:
            async for data in chunks:
                yield blobs_pb2.DownloadBlobResponse(data=data)


async def _chunks(
    first: blobs_pb2.UploadBlobRequest, rest: AsyncIterator[blobs_pb2.UploadBlobRequest]
) -> AsyncIterator[bytes]:
    requests.check_chunk(first.data)
    yield first.data
    async for message in rest:
        requests.check_chunk(message.data)
        yield message.data
