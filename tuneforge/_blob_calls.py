"""What uploads and downloads of blobs share: how access is asked for, and after which errors a transfer may go on."""

from dataclasses import dataclass

import grpc

from tuneforge._transport import RetryPolicy, call, is_retriable, typed_error
from tuneforge.errors import Reason, TuneforgeError
from tuneforge.v1.blobs_pb2 import (
    BLOB_WAY_PRESIGNED,
    BLOB_WAY_STREAM,
    BlobAccess,
    BlobDirection,
    GetBlobAccessRequest,
)
from tuneforge.v1.registry_pb2_grpc import RegistryServiceStub

PEER = "the registry"
TRY_DEADLINE_S = 600.0
"""Deadline of one try of a transfer. A longer one is broken off and resumed, so that no half-dead stream hangs."""
CHUNK_BYTES = 1024 * 1024
"""Largest chunk sent; a smaller `BlobStream.chunk_bytes` wins."""


@dataclass
class BlobCalls:
    """The registry, as the transfers of one client know it."""

    stub: RegistryServiceStub
    parent: str
    """`projects/{project}`."""
    retry: RetryPolicy
    may_use_urls: bool = True
    """Until the store behind the registry cannot be reached from here, or there is none."""

    def access(self, name: str, direction: BlobDirection.ValueType, size_bytes: int) -> BlobAccess:
        """Returns how to move the bytes of `blobs/{digest}` or `uploads/{upload}`."""
        request = GetBlobAccessRequest(
            name=f"{self.parent}/{name}",
            direction=direction,
            size_bytes=size_bytes,
            way=BLOB_WAY_PRESIGNED if self.may_use_urls else BLOB_WAY_STREAM,
        )
        return call(self.stub.GetBlobAccess, request, retry=self.retry, peer=PEER)


def resumable(rpc_error: grpc.RpcError) -> TuneforgeError:
    """Returns the typed error when the transfer may go on after it, else raises it."""
    error = typed_error(rpc_error, PEER)
    code = rpc_error.code() if isinstance(rpc_error, grpc.Call) else None
    if is_retriable(rpc_error) or code is grpc.StatusCode.DEADLINE_EXCEEDED or error.reason == Reason.OFFSET_MISMATCH:
        return error
    raise error from None
