"""One transfer in a process of its own, so that its memory can be measured: `python -m benchmarks.blob_client ...`.

    upload ADDRESS FILE          through the SDK
    download ADDRESS DIGEST SIZE FILE
    copy FROM TO                 the peer: read, hash, write and sync, as plainly as can be
    wire ADDRESS FILE            the ceiling of an upload by gRPC: to `benchmarks.blob_wire`
    socket ADDRESS FILE          the ceiling of any upload: to `benchmarks.blob_socket`
    put ENDPOINT BUCKET FILE     the peer in S3: hash, then the minio client's upload
    get ENDPOINT BUCKET FILE     the peer in S3: the minio client's download, then hash

Prints seconds and the peak of memory in MB as JSON; the time does not count the start of the process.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_PIECE_BYTES = 1024 * 1024


def copy(source: Path, destination: Path) -> str:
    """Copies a file with hashing and returns its digest."""
    hasher = hashlib.sha256()
    with source.open("rb", buffering=0) as reading, destination.open("wb", buffering=0) as writing:
        while piece := reading.read(_PIECE_BYTES):
            hasher.update(piece)
            writing.write(piece)
        os.fsync(writing.fileno())
    return hasher.hexdigest()


def over_wire(address: str, file: Path) -> str:
    """Sends a file over a bare stream, hashed beside, and returns its digest."""
    import grpc

    from benchmarks.blob_wire import METHOD, SERVICE
    from tuneforge.v1.blobs_pb2 import UploadBlobRequest

    def messages() -> Iterator[UploadBlobRequest]:
        with file.open("rb", buffering=0) as reading:
            while piece := reading.read(_PIECE_BYTES):
                yield UploadBlobRequest(data=piece)

    with ThreadPoolExecutor(1) as beside, grpc.insecure_channel(address) as channel:
        digest = beside.submit(_digest, file)
        found: bytes = channel.stream_unary(f"/{SERVICE}/{METHOD}", UploadBlobRequest.SerializeToString)(messages())
        if found.decode() != digest.result():
            raise AssertionError("the bytes that came are not those that went")
        return digest.result()


def over_socket(address: str, file: Path) -> str:
    """Sends a file over a bare socket, hashed beside, and returns its digest."""
    host, port = address.rsplit(":", 1)
    with ThreadPoolExecutor(1) as beside, socket.create_connection((host, int(port))) as connection:
        digest = beside.submit(_digest, file)
        connection.sendall(f"{file.stat().st_size}\n".encode())
        with file.open("rb") as reading:
            connection.sendfile(reading)
        if connection.recv(64, socket.MSG_WAITALL).decode() != digest.result():
            raise AssertionError("the bytes that came are not those that went")
        return digest.result()


def in_s3(action: str, endpoint: str, bucket: str, file: Path) -> str:
    """Moves a file as a plain user of the minio client does, and returns its digest."""
    import minio

    client = minio.Minio(
        endpoint.removeprefix("http://"),
        access_key=os.environ["AWS_ACCESS_KEY_ID"],
        secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        secure=False,
        region="us-east-1",
    )
    if action == "put":
        digest = _digest(file)
        client.fput_object(bucket, "plain", str(file))
        return digest
    client.fget_object(bucket, "plain", str(file))
    return _digest(file)


def _digest(file: Path) -> str:
    with file.open("rb") as reading:
        return hashlib.file_digest(reading, "sha256").hexdigest()


def main(arguments: list[str]) -> None:
    """Does what it is told to, and says how long it took."""
    from tuneforge.blobs import BlobClient

    action, *rest = arguments
    began, digest = time.perf_counter(), ""
    if action == "copy":
        digest = copy(Path(rest[0]), Path(rest[1]))
    elif action == "wire":
        digest = over_wire(rest[0], Path(rest[1]))
    elif action == "socket":
        digest = over_socket(rest[0], Path(rest[1]))
    elif action in {"put", "get"}:
        digest = in_s3(action, rest[0], rest[1], Path(rest[2]))
    else:
        with BlobClient.connect(rest[0], "default") as blobs:
            if action == "upload":
                digest = blobs.upload_file(Path(rest[1])).sha256
            else:
                digest = rest[1]
                blobs.download(digest, int(rest[2]), Path(rest[3]))
    seconds = time.perf_counter() - began
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb, "digest": digest}))


if __name__ == "__main__":
    main(sys.argv[1:])
