"""Blobs in S3: bytes go straight to the store and back, are verified before they count, and faults get right names."""

import asyncio
import contextlib
import hashlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import urllib3

from services.registry.blobs import presigned
from services.registry.blobs.settings import StorageSettings
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.registry import PROJECT, RunningRegistry, pieces, refused, running_registry
from tests.support.s3_proxy import Fault, Proxy, faulty_proxy
from tests.support.seaweedfs import Bucket
from tuneforge import _object_urls
from tuneforge._transport import RetryPolicy
from tuneforge.blobs import BlobClient
from tuneforge.errors import Reason, TuneforgeError
from tuneforge.manifest import IntegrityError
from tuneforge.v1 import blobs_pb2 as pb

pytestmark = EACH_DATABASE

CONTENT = os.urandom(1024) * 3 * 1024  # 3 MiB: above what goes through the registry
DIGEST = hashlib.sha256(CONTENT).hexdigest()
MIB = 1024 * 1024
LARGE = CONTENT * 4  # 12 MiB
LARGE_DIGEST = hashlib.sha256(LARGE).hexdigest()
SMALLEST_PART = 5 * MIB
"""What S3 takes as a part that is not the last."""
QUICK = RetryPolicy(initial_s=0.01, max_s=0.05, budget_s=3.0)


@contextlib.asynccontextmanager
async def behind_proxy(bucket: Bucket, data: Path) -> AsyncIterator[tuple[RunningRegistry, Proxy]]:
    """Serves a registry whose store is reached through a proxy."""
    with faulty_proxy(bucket) as proxy:
        settings = bucket.settings(endpoint=proxy.endpoint, timeout_s=0.5)
        async with running_registry(data, storage=StorageSettings(s3=settings, collect_every_s=0)) as registry:
            yield registry, proxy


def asked(
    direction: pb.BlobDirection.ValueType, *, size: int = len(CONTENT), digest: str = DIGEST
) -> pb.GetBlobAccessRequest:
    """Returns the request for URLs."""
    name = f"{PROJECT}/blobs/{digest}"
    return pb.GetBlobAccessRequest(name=name, direction=direction, size_bytes=size, way=pb.BLOB_WAY_PRESIGNED)


def send(part: pb.BlobPart, content: bytes) -> int:
    """Sends a part as any HTTP client would; returns the status."""
    pool = urllib3.PoolManager(retries=False)
    body = content[part.offset : part.offset + part.size_bytes]
    return pool.request("PUT", part.url, body=body, headers=dict(part.headers)).status


async def complete(registry: RunningRegistry, digest: str = DIGEST) -> pb.UploadBlobResponse:
    """Completes an upload."""
    return await registry.stub.CompleteUpload(pb.CompleteUploadRequest(name=f"{PROJECT}/uploads/{digest}"))


def transfer(address: str, folder: Path, content: bytes = CONTENT) -> bytes:
    """Uploads content with the SDK and downloads it again; returns what came."""
    (folder / "content").write_bytes(content)
    with BlobClient.connect(address, "default", retry=QUICK) as blobs:
        entry = blobs.upload_file(folder / "content")
        blobs.download(entry.sha256, entry.size_bytes, folder / "back" / entry.sha256)
    return (folder / "back" / entry.sha256).read_bytes()


@on_loop
async def test_bytes_do_not_pass_through_the_registry(tmp_path: Path, bucket: Bucket) -> None:
    """The SDK's upload and download go to the store; the registry reads nothing of a blob that the store checked."""
    with faulty_proxy(bucket) as proxy:
        settings = bucket.settings(public_endpoint=proxy.endpoint)
        async with running_registry(tmp_path, storage=StorageSettings(s3=settings, collect_every_s=0)) as registry:
            assert await asyncio.to_thread(transfer, registry.address, tmp_path) == CONTENT
        assert proxy.moved_bytes >= 2 * len(CONTENT)
        assert {method for method, _ in proxy.seen} == {"PUT", "GET"}
        assert not list((tmp_path / "uploads").iterdir())


@on_loop
async def test_large_blobs_travel_in_parts(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts are sent on their own; what the store has is not asked for again, and a part that lacks leaves it open."""
    monkeypatch.setattr(presigned, "WHOLE_BYTES", MIB)
    monkeypatch.setattr(presigned, "PART_BYTES", SMALLEST_PART)
    storage = StorageSettings(s3=bucket.settings(), collect_every_s=0)
    write = asked(pb.BLOB_DIRECTION_WRITE, size=len(LARGE), digest=LARGE_DIGEST)
    async with running_registry(tmp_path, storage=storage) as registry:
        first = (await registry.stub.GetBlobAccess(write)).presigned
        assert [(part.number, part.offset, part.size_bytes) for part in first.parts] == [
            (1, 0, 5 * MIB),
            (2, 5 * MIB, 5 * MIB),
            (3, 10 * MIB, 2 * MIB),
        ]
        assert await asyncio.to_thread(send, first.parts[1], LARGE) == 200
        answer = await complete(registry, LARGE_DIGEST)
        assert (answer.is_stored, answer.committed_bytes) == (False, 5 * MIB)
        read = asked(pb.BLOB_DIRECTION_READ, digest=LARGE_DIGEST)
        await refused(registry.stub.GetBlobAccess(read), Reason.NOT_FOUND)
    async with running_registry(tmp_path, storage=storage) as registry:  # an upload outlives the registry
        again = (await registry.stub.GetBlobAccess(write)).presigned
        assert [part.is_stored for part in again.parts] == [False, True, False]
        assert not again.parts[1].url
        assert await asyncio.to_thread(transfer, registry.address, tmp_path, LARGE) == LARGE
        assert (await complete(registry, LARGE_DIGEST)).is_stored  # repeated after its end, it tells the same


@on_loop
async def test_content_that_lies_never_counts(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent whole, the store refuses it; sent in parts, the registry reads it and refuses it; nothing is kept."""
    storage = StorageSettings(s3=bucket.settings(), collect_every_s=0)
    async with running_registry(tmp_path, storage=storage) as registry:
        whole = (await registry.stub.GetBlobAccess(asked(pb.BLOB_DIRECTION_WRITE))).presigned
        assert await asyncio.to_thread(send, whole.parts[0], CONTENT[::-1]) == 400
        assert not (await complete(registry)).is_stored
        monkeypatch.setattr(presigned, "WHOLE_BYTES", MIB)
        monkeypatch.setattr(presigned, "PART_BYTES", SMALLEST_PART)
        other = hashlib.sha256(b"other").hexdigest()
        write = asked(pb.BLOB_DIRECTION_WRITE, size=len(LARGE), digest=other)
        parts = (await registry.stub.GetBlobAccess(write)).presigned.parts
        assert [await asyncio.to_thread(send, part, LARGE) for part in parts] == [200, 200, 200]
        error = await refused(complete(registry, other), Reason.DIGEST_MISMATCH)
        assert error.metadata["found"] == LARGE_DIGEST
        await refused(complete(registry, other), Reason.NOT_FOUND)
        await refused(registry.stub.GetBlobAccess(asked(pb.BLOB_DIRECTION_READ, digest=other)), Reason.NOT_FOUND)


@on_loop
async def test_a_store_that_checks_nothing_is_read(tmp_path: Path, bucket: Bucket) -> None:
    """Where the store was not seen to refuse a wrong checksum, the registry reads what came; it counts all the same."""
    with faulty_proxy(bucket) as proxy:
        settings = bucket.settings(endpoint=proxy.endpoint, public_endpoint=bucket.endpoint)
        proxy.faults = [Fault("PUT", part="X-Amz-Signature", status=200, code="")]  # the probe seems to be taken
        async with running_registry(tmp_path, storage=StorageSettings(s3=settings, collect_every_s=0)) as registry:
            assert await asyncio.to_thread(transfer, registry.address, tmp_path) == CONTENT
        assert proxy.moved_bytes >= len(CONTENT)


@on_loop
async def test_urls_are_narrow(tmp_path: Path, bucket: Bucket) -> None:
    """A URL writes once, expires, is for its method, and is not to be found in any log."""
    settings = bucket.settings(url_life_s=3600.0)
    async with running_registry(tmp_path, storage=StorageSettings(s3=settings, collect_every_s=0)) as registry:
        part = (await registry.stub.GetBlobAccess(asked(pb.BLOB_DIRECTION_WRITE))).presigned.parts[0]
        pool = urllib3.PoolManager(retries=False)
        assert pool.request("GET", part.url, headers=dict(part.headers)).status == 403
        assert pool.request("PUT", part.url, body=CONTENT).status == 403  # without the headers that are signed
        assert await asyncio.to_thread(send, part, CONTENT) == 200
        assert await asyncio.to_thread(send, part, CONTENT) == 412
        stale = part.url.replace("X-Amz-Expires=3600", "X-Amz-Expires=3601")
        assert pool.request("PUT", stale, body=CONTENT, headers=dict(part.headers)).status == 403


@on_loop
async def test_a_client_that_cannot_reach_the_store_goes_through_the_registry(tmp_path: Path, bucket: Bucket) -> None:
    """URLs that lead nowhere cost one try; the bytes arrive and come back by stream."""
    settings = bucket.settings(public_endpoint="http://127.0.0.1:9")
    async with running_registry(tmp_path, storage=StorageSettings(s3=settings, collect_every_s=0)) as registry:
        assert await asyncio.to_thread(transfer, registry.address, tmp_path) == CONTENT


PASSING = [
    Fault(status=503, code="SlowDown"),
    Fault(status=500, code="InternalError"),
    Fault("PUT", kind="reset"),
    Fault("GET", kind="truncate"),
    Fault("GET", kind="reset"),
    Fault(kind="hang"),
]


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: f"{fault.method}{fault.kind}{fault.status}")
def test_faults_that_pass_are_not_noticed(
    tmp_path: Path, bucket: Bucket, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that fails once, anywhere on the way, costs time and nothing else: by URL and through the registry."""
    monkeypatch.setattr(_object_urls, "_IDLE_TIMEOUT_S", 0.5)

    @on_loop
    async def check() -> None:
        async with behind_proxy(bucket, tmp_path) as (registry, proxy):
            for content in (CONTENT, CONTENT[:MIB]):
                proxy.faults = [replace(fault, times=1), replace(fault, method="GET", part="blobs", times=1)]
                assert await asyncio.to_thread(transfer, registry.address, tmp_path, content) == content

    check()


STAYING = {
    Reason.STORAGE_UNAVAILABLE: [
        Fault(status=503, code="SlowDown", times=99),
        Fault(status=500, code="InternalError", times=99),
        Fault(kind="hang", times=99),
        Fault("GET", part="blobs", kind="truncate", times=99),
    ],
    Reason.STORAGE_MISCONFIGURED: [
        Fault(status=403, code="AccessDenied", times=99),
        Fault(status=404, code="NoSuchBucket", times=99),
        Fault(status=400, code="AuthorizationHeaderMalformed", times=99),
        Fault(status=403, code="RequestTimeTooSkewed", times=99),
    ],
}


@pytest.mark.parametrize(
    ("reason", "fault"), [(reason, fault) for reason, faults in STAYING.items() for fault in faults], ids=str
)
def test_faults_that_stay_are_named(tmp_path: Path, bucket: Bucket, reason: Reason, fault: Fault) -> None:
    """A store that stays away, and one that refuses the registry, are told as what they are, without a URL."""

    @on_loop
    async def check() -> None:
        async with behind_proxy(bucket, tmp_path) as (registry, proxy):
            small = await registry.put(b"small")
            proxy.faults = [replace(fault)]
            request = pb.DownloadBlobRequest(name=f"{PROJECT}/blobs/{small}")
            error = await refused(registry.stub.DownloadBlob(request).read(), reason)
            assert (error.retry_after_s is not None) == (reason is Reason.STORAGE_UNAVAILABLE)
            assert "http" not in str(error)
            assert "Signature" not in str(error)
            if fault.method == "":
                await refused(registry.put(b"another"), reason)
                proxy.faults = []
                assert (await registry.upload(pieces(b"another", offset=7))).is_stored  # what had arrived was kept

    check()


@on_loop
async def test_a_store_that_is_gone_is_unavailable(tmp_path: Path, bucket: Bucket) -> None:
    """A refused connection is STORAGE_UNAVAILABLE; the registry starts all the same and goes on when it is back."""
    with faulty_proxy(bucket) as proxy:
        settings = bucket.settings(endpoint=proxy.endpoint, timeout_s=0.5)
    async with running_registry(tmp_path, storage=StorageSettings(s3=settings, collect_every_s=0)) as registry:
        await refused(registry.put(b"x"), Reason.STORAGE_UNAVAILABLE)
        await refused(
            registry.stub.GetBlobAccess(asked(pb.BLOB_DIRECTION_WRITE, size=2**30)), Reason.STORAGE_UNAVAILABLE
        )


@on_loop
async def test_bytes_that_the_store_lost_or_changed_are_told(tmp_path: Path, bucket: Bucket) -> None:
    """An object that is gone is BLOB_DAMAGED, and taken anew; one with another byte is refused by who loads it."""
    storage = StorageSettings(s3=bucket.settings(), collect_every_s=0)
    async with running_registry(tmp_path, storage=storage) as registry:
        digest = await registry.put(b"precious")
        (key,) = bucket.keys("tests/blobs")
        bucket.client.remove_object(bucket.name, key)
        request = pb.DownloadBlobRequest(name=f"{PROJECT}/blobs/{digest}")
        await refused(registry.stub.DownloadBlob(request).read(), Reason.BLOB_DAMAGED)
        assert not (await registry.stub.GetBlobAccess(asked(pb.BLOB_DIRECTION_WRITE, size=8, digest=digest))).is_stored
        assert await registry.put(b"precious") == digest
        assert await registry.stub.DownloadBlob(request).read()
    async with behind_proxy(bucket, tmp_path) as (registry, proxy):
        proxy.faults = [Fault("GET", part="blobs", kind="flip", times=9)]
        with BlobClient.connect(registry.address, "default", retry=QUICK) as blobs, pytest.raises(IntegrityError):
            await asyncio.to_thread(blobs.download, digest, 8, tmp_path / "precious")


@on_loop
async def test_a_file_that_changes_while_it_is_sent_is_refused(tmp_path: Path, bucket: Bucket) -> None:
    """The store checks what came against the digest that was announced."""
    storage = StorageSettings(s3=bucket.settings(), collect_every_s=0)
    async with running_registry(tmp_path, storage=storage) as registry:
        path = tmp_path / "file"
        path.write_bytes(CONTENT)

        def upload() -> None:
            with BlobClient.connect(registry.address, "default", retry=QUICK) as blobs:
                from tuneforge.manifest import build

                folder = tmp_path / "folder"
                folder.mkdir()
                (folder / "file").write_bytes(CONTENT)
                manifest = build(folder)
                (folder / "file").write_bytes(CONTENT[::-1])
                blobs.upload_manifest(folder, manifest)

        with pytest.raises(IntegrityError):
            await asyncio.to_thread(upload)


@on_loop
async def test_urls_and_secrets_are_in_no_log(
    tmp_path: Path, bucket: Bucket, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the registry writes while it hands out URLs and meets faults has neither."""
    async with behind_proxy(bucket, tmp_path) as (registry, proxy):
        await registry.stub.GetBlobAccess(asked(pb.BLOB_DIRECTION_WRITE))
        proxy.faults = [Fault(status=403, code="AccessDenied", times=9)]
        with contextlib.suppress(grpc.RpcError, TuneforgeError):
            await registry.stub.GetBlobAccess(asked(pb.BLOB_DIRECTION_WRITE, size=2**30))
    written = "".join(capfd.readouterr())
    assert "X-Amz" not in written
    assert bucket.secret_key not in written
    assert json.dumps(bucket.secret_key) not in written
