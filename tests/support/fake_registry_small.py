"""A registry that keeps blobs and data sets in memory, on a real socket, and breaks off streams on demand.

It is for tests of the SDK that need faults at exact places; everything else is tested against the real registry.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import status_pb2
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from tuneforge.errors import DOMAIN, REQUEST_ID_KEY, Reason
from tuneforge.v1 import blobs_pb2 as blobs
from tuneforge.v1 import datasets_pb2 as datasets
from tuneforge.v1.registry_pb2_grpc import RegistryServiceServicer, add_RegistryServiceServicer_to_server

CHUNK_BYTES = 1000


@dataclass
class FakeRegistry:
    """Blobs by digest; `break_every` bytes of a transfer it answers UNAVAILABLE, `breaks` times in all.

    A registry of an earlier release takes uploads by their digest alone.
    """

    stored: dict[str, bytes] = field(default_factory=dict)
    partial: dict[str, bytearray] = field(default_factory=dict)
    breaks: int = 0
    break_every: int = 2500
    calls: list[str] = field(default_factory=list)
    headers: list[dict[str, str | bytes]] = field(default_factory=list)
    deadlines: list[float | None] = field(default_factory=list)
    refusals: int = 0
    is_old: bool = False
    loses_answers: int = 0
    datasets: list[str] = field(default_factory=list)

    def note(self, method: str, context: grpc.ServicerContext) -> None:
        """Remembers a call, and refuses it while `refusals` are left."""
        self.calls.append(method)
        self.headers.append(dict(context.invocation_metadata()))
        self.deadlines.append(context.time_remaining())
        if self.refusals:
            self.refusals -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")

    def maybe_break(self, moved: int, context: grpc.ServicerContext) -> None:
        """Breaks off a transfer that has moved enough."""
        if self.breaks and moved >= self.break_every:
            self.breaks -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "broken off")


def refuse(context: grpc.ServicerContext, code: grpc.StatusCode, reason: Reason) -> None:
    """Ends a call with a `google.rpc.Status` like that of the real services."""
    status = status_pb2.Status(code=code.value[0], message=f"refused: {reason}")
    status.details.add().Pack(ErrorInfo(reason=reason, domain=DOMAIN, metadata={REQUEST_ID_KEY: "r-1"}))
    context.abort_with_status(rpc_status.to_status(status))  # type: ignore[no-untyped-call]  # grpc_status has no types


class _Servicer(RegistryServiceServicer):
    def __init__(self, fake: FakeRegistry) -> None:
        self.fake = fake

    def GetBlobAccess(self, request: blobs.GetBlobAccessRequest, context: Any) -> blobs.BlobAccess:
        self.fake.note("GetBlobAccess", context)
        collection, digest = request.name.rsplit("/", 2)[1:]
        if collection == "uploads" and self.fake.is_old:
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, Reason.INVALID_NAME)
        if digest in self.fake.stored:
            return blobs.BlobAccess(name=request.name, is_stored=True)
        held = len(self.fake.partial.get(digest, b""))
        upload = request.name.replace("/blobs/", "/uploads/")
        stream = blobs.BlobStream(upload=upload, committed_bytes=held, chunk_bytes=CHUNK_BYTES)
        access = blobs.BlobAccess(name=request.name, size_bytes=request.size_bytes, stream=stream)
        sizes = {len(content) for content in self.fake.stored.values()}
        access.needs_digest = collection == "uploads" and not held and request.size_bytes in sizes
        return access

    def UploadBlob(self, request_iterator: Any, context: Any) -> blobs.UploadBlobResponse:
        self.fake.note("UploadBlob", context)
        first = next(request_iterator)
        digest = upload = first.upload.rpartition("/")[2]
        held = self.fake.partial.setdefault(digest, bytearray())
        if first.offset != len(held):
            refuse(context, grpc.StatusCode.ABORTED, Reason.OFFSET_MISMATCH)
        held += first.data
        moved = len(first.data)
        for message in request_iterator:
            held += message.data
            moved += len(message.data)
            digest = message.sha256 or digest
            self.fake.maybe_break(moved, context)
        name = first.upload.replace(f"/uploads/{upload}", f"/blobs/{digest}")
        if len(held) < first.size_bytes:
            return blobs.UploadBlobResponse(name=name, committed_bytes=len(held))
        if hashlib.sha256(held).hexdigest() != digest:
            del self.fake.partial[upload]
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, Reason.DIGEST_MISMATCH)
        self.fake.stored[digest] = bytes(self.fake.partial.pop(upload))
        if self.fake.loses_answers:
            self.fake.loses_answers -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "broken off")
        return blobs.UploadBlobResponse(name=name, committed_bytes=first.size_bytes, is_stored=True)

    def DownloadBlob(self, request: blobs.DownloadBlobRequest, context: Any) -> Any:
        self.fake.note("DownloadBlob", context)
        content = self.fake.stored.get(request.name.rpartition("/")[2])
        if content is None:
            refuse(context, grpc.StatusCode.NOT_FOUND, Reason.NOT_FOUND)
            return
        for start in range(request.offset, len(content), CHUNK_BYTES):
            self.fake.maybe_break(start - request.offset, context)
            yield blobs.DownloadBlobResponse(data=content[start : start + CHUNK_BYTES])

    def ListDatasets(self, request: datasets.ListDatasetsRequest, context: Any) -> datasets.ListDatasetsResponse:
        self.fake.note("ListDatasets", context)
        start = int(request.page_token or 0)
        page = [datasets.Dataset(name=f"{request.parent}/datasets/{x}") for x in self.fake.datasets[start : start + 2]]
        following = str(start + 2) if start + 2 < len(self.fake.datasets) else ""
        return datasets.ListDatasetsResponse(datasets=page, next_page_token=following)


@contextlib.contextmanager
def serve(fake: FakeRegistry) -> Iterator[str]:
    """Serves on a free port of the loopback and yields `host:port`."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), options=[("grpc.so_reuseport", 0)])
    add_RegistryServiceServicer_to_server(_Servicer(fake), server)  # type: ignore[abstract]  # it answers what tests need
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
