"""The ceiling of an upload: a bare gRPC stream from Python to Python with the same hashing, writing and syncing.

    python -m benchmarks.blob_wire FILE     serves until it is ended; what comes is written to FILE

Nothing of the registry is in it: no names, no rights, no part to go on with, no database. `benchmarks.blob_client wire`
is the other end.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import grpc

from services.grpckit.freed_memory import keep_freed_memory
from tuneforge.v1.blobs_pb2 import UploadBlobRequest

SERVICE, METHOD = "tuneforge.benchmarks.Wire", "Upload"
_SYNC_BYTES = 32 * 1024 * 1024
_MOST_BYTES = 16 * 1024 * 1024


async def serve(file: Path) -> None:
    """Takes streams of pieces and answers each with the digest of what came."""

    async def upload(messages: AsyncIterator[UploadBlobRequest], _context: object) -> bytes:
        hasher, taking = sha256(), asyncio.ensure_future(asyncio.sleep(0))
        with file.open("wb", buffering=0) as writing, ThreadPoolExecutor(1) as syncing:

            def take(piece: bytes) -> None:
                writing.write(piece)
                hasher.update(piece)
                if writing.tell() % _SYNC_BYTES == 0:
                    syncing.submit(os.fsync, writing.fileno())

            async for message in messages:
                await taking
                taking = asyncio.ensure_future(asyncio.to_thread(take, message.data))  # while the next one travels
            await taking
            await asyncio.to_thread(os.fsync, writing.fileno())
        return hasher.hexdigest().encode()

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", _MOST_BYTES)])
    method: grpc.RpcMethodHandler[UploadBlobRequest, bytes] = grpc.stream_unary_rpc_method_handler(
        upload, UploadBlobRequest.FromString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    keep_freed_memory(heaps=2)
    asyncio.run(serve(Path(sys.argv[1])))
