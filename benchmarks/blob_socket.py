"""The ceiling of any transfer between two processes: a bare TCP socket, with the same hashing, writing and syncing.

    python -m benchmarks.blob_socket FILE   serves until it is ended; what comes is written to FILE

No gRPC, no messages, no copies but the kernel's: whoever hashes a file on both sides and moves it over a socket is not
faster on the same machine. `benchmarks.blob_client socket` is the other end.
"""

from __future__ import annotations

import os
import socket
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

_PIECE_BYTES = 1024 * 1024
_SYNC_BYTES = 32 * 1024 * 1024


def serve(file: Path) -> None:
    """Takes files: a line with the size, then the bytes; answers each with the digest of what came."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(f"listening on 127.0.0.1:{listening.getsockname()[1]}", flush=True)
        while True:
            connection, _ = listening.accept()
            with connection, connection.makefile("rb", buffering=_PIECE_BYTES) as reading:
                connection.sendall(_take(reading, int(reading.readline()), file).encode())


def _take(reading: Any, size_bytes: int, file: Path) -> str:
    hasher = sha256()
    buffers = [memoryview(bytearray(_PIECE_BYTES)) for _ in range(2)]
    taken: Future[None] | None = None
    left, number = size_bytes, 0
    with file.open("wb", buffering=0) as writing, ThreadPoolExecutor(1) as taking, ThreadPoolExecutor(1) as syncing:

        def take(piece: memoryview) -> None:
            writing.write(piece)
            hasher.update(piece)
            if writing.tell() % _SYNC_BYTES == 0:
                syncing.submit(os.fsync, writing.fileno())

        while left:
            buffer = buffers[number % 2][: min(_PIECE_BYTES, left)]
            if reading.readinto(buffer) != len(buffer):
                raise AssertionError("the client has gone")
            if taken is not None:
                taken.result()
            taken = taking.submit(take, buffer)  # while the next one travels
            left, number = left - len(buffer), number + 1
        if taken is not None:
            taken.result()
        os.fsync(writing.fileno())
    return hasher.hexdigest()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
