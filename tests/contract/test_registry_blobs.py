"""Blobs: uploads that break, race and lie, downloads from an offset, and what one project learns of another."""

import asyncio
import hashlib
import json
import os
import threading
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from pathlib import Path

import pytest

from services.registry.blobs.s3 import S3Store
from services.registry.blobs.settings import StorageSettings
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.registry import PROJECT, RunningRegistry, fields_of, pieces, refused, running_registry
from tests.support.seaweedfs import EACH_HOME, s3_of_test
from tuneforge.blobs import BlobClient
from tuneforge.errors import Reason
from tuneforge.v1 import blobs_pb2 as pb

pytestmark = [EACH_DATABASE, EACH_HOME]

CONTENT = bytes(range(256)) * 4096  # 1 MiB
DIGEST = hashlib.sha256(CONTENT).hexdigest()
EMPTY = hashlib.sha256(b"").hexdigest()


def access(
    direction: pb.BlobDirection.ValueType, *, size: int = len(CONTENT), project: str = PROJECT, digest: str = DIGEST
) -> pb.GetBlobAccessRequest:
    """Returns the request that asks how to move a blob."""
    return pb.GetBlobAccessRequest(name=f"{project}/blobs/{digest}", direction=direction, size_bytes=size)


async def download(
    registry: RunningRegistry, *, offset: int = 0, project: str = PROJECT, digest: str = DIGEST
) -> bytes:
    """Returns the bytes of a blob from an offset."""
    request = pb.DownloadBlobRequest(name=f"{project}/blobs/{digest}", offset=offset)
    return b"".join([message.data async for message in registry.stub.DownloadBlob(request)])


async def held(registry: RunningRegistry) -> int:
    """Returns how many bytes of the upload the registry says that it holds."""
    return (await registry.stub.GetBlobAccess(access(pb.BLOB_DIRECTION_WRITE))).stream.committed_bytes


async def until_held(registry: RunningRegistry, at_least: int) -> int:
    """Asks until the registry holds that many bytes; the test's own limit ends it."""
    while (count := await held(registry)) < at_least:
        pass
    return count


def stored_files(registry: RunningRegistry) -> list[str]:
    """Returns the names of all files below blobs and uploads, and in the bucket, without what makes places unique."""
    folders = (registry.data / "blobs", registry.data / "uploads")
    files = [path.name for folder in folders for path in folder.rglob("*") if path.is_file()]
    if (settings := s3_of_test()) is not None:
        files += [each.place.rpartition("/")[2] for each in S3Store(settings).listing()]
    return sorted(name.partition(".")[0] for name in files)


@on_loop
async def test_bytes_come_back_as_they_went(tmp_path: Path) -> None:
    """A blob is stored under its digest, told as stored, and comes back whole, from an offset, and from its end."""
    async with running_registry(tmp_path) as registry:
        before = await registry.stub.GetBlobAccess(access(pb.BLOB_DIRECTION_WRITE))
        assert (before.is_stored, before.stream.committed_bytes) == (False, 0)
        assert before.stream.upload == f"{PROJECT}/uploads/{DIGEST}"
        assert before.stream.chunk_bytes == 1024 * 1024
        assert await registry.put(CONTENT) == DIGEST
        for direction in (pb.BLOB_DIRECTION_WRITE, pb.BLOB_DIRECTION_READ):
            after = await registry.stub.GetBlobAccess(access(direction))
            assert (after.is_stored, after.size_bytes) == (True, len(CONTENT))
        assert await download(registry) == CONTENT
        assert await download(registry, offset=1_000_000) == CONTENT[1_000_000:]
        assert await download(registry, offset=len(CONTENT)) == b""
        assert stored_files(registry) == [DIGEST]


@on_loop
async def test_an_empty_blob_is_a_blob(tmp_path: Path) -> None:
    """Content of no bytes is stored and comes back."""
    async with running_registry(tmp_path) as registry:
        assert await registry.put(b"") == EMPTY
        assert (await registry.stub.GetBlobAccess(access(pb.BLOB_DIRECTION_READ, digest=EMPTY))).is_stored
        assert await download(registry, digest=EMPTY) == b""


@on_loop
async def test_a_broken_upload_goes_on(tmp_path: Path) -> None:
    """What arrived before a stream broke off is kept, also over a restart, and the rest completes it."""

    async def torn() -> AsyncIterator[pb.UploadBlobRequest]:
        for message in islice(pieces(CONTENT), 5):
            yield message
        await asyncio.Event().wait()  # hangs like a client whose network is gone

    async with running_registry(tmp_path) as registry:
        call = registry.stub.UploadBlob(torn())
        count = await until_held(registry, 5 * 64 * 1024)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert count == 5 * 64 * 1024
    async with running_registry(tmp_path) as registry:
        assert await held(registry) == count
        answer = await registry.upload(pieces(CONTENT, offset=count))
        assert (answer.is_stored, answer.committed_bytes) == (True, len(CONTENT))
        assert await download(registry) == CONTENT


@on_loop
async def test_a_stream_that_falls_silent_is_ended(tmp_path: Path) -> None:
    """After some pieces, or before the first: a clear reason, and the rest completes what arrived."""
    is_over = asyncio.Event()

    async def silent(count: int) -> AsyncIterator[pb.UploadBlobRequest]:
        for message in islice(pieces(CONTENT), count):
            yield message
        await is_over.wait()

    storage = StorageSettings(s3=s3_of_test(), collect_every_s=0, upload_silence_s=1.5)
    async with running_registry(tmp_path, storage=storage) as registry:
        for count in (0, 5):
            error = await refused(registry.stub.UploadBlob(silent(count)), Reason.UPLOAD_SILENT)
            assert error.metadata["silence_s"] == "1.5"
            assert await held(registry) == count * 64 * 1024
        is_over.set()
        await registry.upload(pieces(CONTENT, offset=5 * 64 * 1024))
        assert await download(registry) == CONTENT


@on_loop
async def test_a_stream_that_ends_early_keeps_what_arrived(tmp_path: Path) -> None:
    """A client may stop in good order; the answer tells what is held."""
    async with running_registry(tmp_path) as registry:
        answer = await registry.upload(islice(pieces(CONTENT, chunk_bytes=512 * 1024), 1))
        assert (answer.is_stored, answer.committed_bytes) == (False, 512 * 1024)
        await refused(registry.stub.GetBlobAccess(access(pb.BLOB_DIRECTION_READ)), Reason.NOT_FOUND)


@on_loop
async def test_an_upload_goes_on_at_its_offset_only(tmp_path: Path) -> None:
    """Another offset is OFFSET_MISMATCH, with the right one in the metadata."""
    async with running_registry(tmp_path) as registry:
        error = await refused(registry.upload(pieces(CONTENT, offset=100)), Reason.OFFSET_MISMATCH)
        assert error.metadata["committed_bytes"] == "0"


@on_loop
async def test_content_with_another_digest_is_not_kept(tmp_path: Path) -> None:
    """Wrong content, and more bytes than announced, are DIGEST_MISMATCH and leave nothing."""
    async with running_registry(tmp_path) as registry:
        await refused(registry.upload(pieces(CONTENT[::-1], digest=DIGEST)), Reason.DIGEST_MISMATCH)
        assert await held(registry) == 0
        await refused(registry.upload([*pieces(CONTENT), pb.UploadBlobRequest(data=b"more")]), Reason.DIGEST_MISMATCH)
        assert stored_files(registry) == []
        assert await registry.put(CONTENT) == DIGEST


def unnamed(content: bytes, upload: str = "mine", *, offset: int = 0) -> Iterator[pb.UploadBlobRequest]:
    """Yields the messages of an upload whose digest has not been told."""
    return pieces(content, digest=upload, offset=offset)


async def unnamed_access(
    registry: RunningRegistry, *, project: str = PROJECT, size: int = len(CONTENT)
) -> pb.BlobAccess:
    """Returns how an upload without a digest is to go."""
    name, direction = f"{project}/uploads/mine", pb.BLOB_DIRECTION_WRITE
    return await registry.stub.GetBlobAccess(pb.GetBlobAccessRequest(name=name, direction=direction, size_bytes=size))


@on_loop
async def test_the_digest_may_come_last(tmp_path: Path) -> None:
    """Bytes are held without it and stored with it; the answer names the blob; a restart between changes nothing."""
    async with running_registry(tmp_path) as registry:
        fresh = await unnamed_access(registry)
        assert (fresh.stream.upload, fresh.needs_digest) == (f"{PROJECT}/uploads/mine", False)
        held = await registry.upload(unnamed(CONTENT))
        assert (held.name, held.committed_bytes, held.is_stored) == ("", len(CONTENT), False)
    async with running_registry(tmp_path) as registry:
        assert (await unnamed_access(registry)).stream.committed_bytes == len(CONTENT)
        last = pb.UploadBlobRequest(sha256=DIGEST)
        answer = await registry.upload([*unnamed(CONTENT, offset=len(CONTENT)), last])
        assert (answer.name, answer.is_stored) == (f"{PROJECT}/blobs/{DIGEST}", True)
        assert await download(registry) == CONTENT
        assert stored_files(registry) == [DIGEST]


@on_loop
async def test_a_wrong_digest_at_the_end_keeps_nothing(tmp_path: Path) -> None:
    """Another digest than that of the bytes is DIGEST_MISMATCH with both; a malformed or second one INVALID_FIELD."""
    async with running_registry(tmp_path) as registry:
        changed = bytearray(CONTENT)
        changed[-1] ^= 1
        last = pb.UploadBlobRequest(sha256=DIGEST)
        error = await refused(registry.upload([*unnamed(bytes(changed)), last]), Reason.DIGEST_MISMATCH)
        assert error.metadata["expected"] == DIGEST
        assert error.metadata["found"] == hashlib.sha256(changed).hexdigest()
        assert stored_files(registry) == []
        for sha256, messages in (("f" * 63, unnamed(CONTENT)), (EMPTY, pieces(CONTENT))):
            bad = registry.upload([*messages, pb.UploadBlobRequest(sha256=sha256)])
            assert fields_of(await refused(bad, Reason.INVALID_FIELD)) == ["sha256"]
        await refused(registry.stub.GetBlobAccess(access(pb.BLOB_DIRECTION_READ)), Reason.NOT_FOUND)


@on_loop
async def test_a_digest_is_asked_for_where_it_may_save_the_sending(tmp_path: Path) -> None:
    """It is where the project itself has a blob as large and no byte of the upload has come."""
    async with running_registry(tmp_path) as registry:
        await registry.put(CONTENT)
        assert (await unnamed_access(registry)).needs_digest
        assert not (await unnamed_access(registry, size=len(CONTENT) + 1)).needs_digest
        assert not (await unnamed_access(registry, project="projects/other")).needs_digest
        await registry.upload(islice(unnamed(CONTENT), 2))
        begun = await unnamed_access(registry)
        assert (begun.needs_digest, begun.stream.committed_bytes) == (False, 2 * 64 * 1024)


@on_loop
async def test_an_upload_without_a_digest_is_its_callers(tmp_path: Path) -> None:
    """Another principal's upload of the same name is another one, and not to be seen."""
    tokens = [
        {"token_sha256": hashlib.sha256(token).hexdigest(), "principal": name, "roles": ["editor"], "projects": ["*"]}
        for token, name in ((b"e", "eve"), (b"v", "vic"))
    ]
    (tmp_path / "tokens.json").write_text(json.dumps(tokens))
    async with running_registry(tmp_path / "data", tokens_file=tmp_path / "tokens.json") as registry:
        await registry.upload(islice(unnamed(CONTENT[::-1]), 3), token="e")
        answer = await registry.upload([*unnamed(CONTENT), pb.UploadBlobRequest(sha256=DIGEST)], token="v")
        assert answer.is_stored


@pytest.mark.parametrize("hash_first_bytes", [0, 2**30])
@on_loop
async def test_many_uploads_of_the_same_blob_are_safe(
    tmp_path: Path, hash_first_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that send the same content at once, digest first or last, and go on where told, end with one blob."""
    monkeypatch.setattr("tuneforge._uploads.HASH_FIRST_BYTES", hash_first_bytes)
    path = tmp_path / "content"
    path.write_bytes(CONTENT)

    def client() -> str:
        with BlobClient.connect(registry.address, "default") as blobs:
            return blobs.upload_file(path).sha256

    async with running_registry(tmp_path / "data") as registry:
        assert set(await asyncio.gather(*(asyncio.to_thread(client) for _ in range(6)))) == {DIGEST}
        assert await download(registry) == CONTENT
        assert stored_files(registry) == [DIGEST]


@on_loop
async def test_the_newest_stream_takes_an_upload_over(tmp_path: Path) -> None:
    """A stream that hangs does not block its own retry: the retry wins and the old one is told."""
    more = threading.Event()

    def slow() -> Iterator[pb.UploadBlobRequest]:
        for number, message in enumerate(pieces(CONTENT)):
            if number == 1:
                more.wait()
            yield message

    async with running_registry(tmp_path) as registry:
        old = asyncio.create_task(registry.upload(slow()))
        count = await until_held(registry, 64 * 1024)
        assert (await registry.upload(pieces(CONTENT, offset=count))).is_stored
        more.set()
        await refused(old, Reason.OFFSET_MISMATCH)
        assert await download(registry) == CONTENT


@on_loop
async def test_projects_do_not_learn_of_each_other(tmp_path: Path) -> None:
    """A blob of another project is not there, not half there, and has to be sent whole; then both have it."""
    other = "projects/other"
    async with running_registry(tmp_path) as registry:
        stub = registry.stub
        await registry.put(CONTENT)
        await refused(stub.GetBlobAccess(access(pb.BLOB_DIRECTION_READ, project=other)), Reason.NOT_FOUND)
        fresh = await stub.GetBlobAccess(access(pb.BLOB_DIRECTION_WRITE, project=other))
        never = await stub.GetBlobAccess(access(pb.BLOB_DIRECTION_WRITE, project=other, digest="0" * 64))
        assert (fresh.is_stored, fresh.stream.committed_bytes) == (never.is_stored, never.stream.committed_bytes)
        request = pb.DownloadBlobRequest(name=f"{other}/blobs/{DIGEST}")
        await refused(stub.DownloadBlob(request).read(), Reason.NOT_FOUND)
        await refused(registry.upload(pieces(CONTENT[:9], project=other, digest=DIGEST)), Reason.DIGEST_MISMATCH)
        await registry.put(CONTENT, project=other)
        assert await download(registry, project=other) == await download(registry)
        assert stored_files(registry) == [DIGEST]


@on_loop
async def test_uploads_are_for_those_who_may_touch_the_project(tmp_path: Path) -> None:
    """The project in the first message of a stream is checked like that of any other call."""
    tokens = [
        {"token_sha256": hashlib.sha256(token).hexdigest(), "principal": name, "roles": [role], "projects": ["default"]}
        for token, name, role in ((b"e", "eve", "editor"), (b"v", "vic", "viewer"))
    ]
    (tmp_path / "tokens.json").write_text(json.dumps(tokens))
    async with running_registry(tmp_path / "data", tokens_file=tmp_path / "tokens.json") as registry:
        foreign = registry.upload(pieces(CONTENT, project="projects/other"), token="e")
        await refused(foreign, Reason.PERMISSION_DENIED)
        await refused(registry.upload(pieces(CONTENT), token="v"), Reason.PERMISSION_DENIED)
        await refused(registry.upload(pieces(CONTENT)), Reason.UNAUTHENTICATED)
        assert (await registry.upload(pieces(CONTENT), token="e")).is_stored
        metadata = [("authorization", "Bearer v")]
        assert (await registry.stub.GetBlobAccess(access(pb.BLOB_DIRECTION_READ), metadata=metadata)).is_stored


@on_loop
async def test_first_messages_are_checked(tmp_path: Path) -> None:
    """All fields that are missing or out of range are told; a chunk that is too large is refused."""
    async with running_registry(tmp_path) as registry:
        upload = f"{PROJECT}/uploads/{DIGEST}"
        cases = {
            (): pb.UploadBlobRequest(),
            ("upload", "size_bytes"): pb.UploadBlobRequest(upload="x", size_bytes=-1),
            ("offset",): pb.UploadBlobRequest(upload=upload, size_bytes=5, offset=6),
            ("data",): pb.UploadBlobRequest(upload=upload, size_bytes=2**30, data=b"x" * (1024 * 1024 + 1)),
        }
        for fields, message in cases.items():
            error = await refused(registry.upload([message]), Reason.INVALID_FIELD)
            assert fields_of(error) == list(fields or ("upload",))
        await refused(registry.upload([]), Reason.INVALID_FIELD)


@pytest.mark.parametrize("size", [-1, 2**40 + 1])
def test_access_is_asked_for_with_direction_and_size(tmp_path: Path, size: int) -> None:
    """An unset direction and a size that no blob has are INVALID_FIELD; a name that is none is INVALID_NAME."""

    @on_loop
    async def check() -> None:
        async with running_registry(tmp_path) as registry:
            stub = registry.stub
            unset = access(pb.BLOB_DIRECTION_UNSPECIFIED)
            assert fields_of(await refused(stub.GetBlobAccess(unset), Reason.INVALID_FIELD)) == ["direction"]
            sized = access(pb.BLOB_DIRECTION_WRITE, size=size)
            assert fields_of(await refused(stub.GetBlobAccess(sized), Reason.INVALID_FIELD)) == ["size_bytes"]
            escaping = access(pb.BLOB_DIRECTION_READ, digest="../../registry.sqlite")
            await refused(stub.GetBlobAccess(escaping), Reason.INVALID_NAME)

    check()


@on_loop
async def test_downloads_begin_inside_the_blob(tmp_path: Path) -> None:
    """An offset beyond the size, or below 0, is INVALID_FIELD; a blob that is not there is NOT_FOUND."""
    async with running_registry(tmp_path) as registry:
        await registry.put(CONTENT)
        for offset in (-1, len(CONTENT) + 1):
            request = pb.DownloadBlobRequest(name=f"{PROJECT}/blobs/{DIGEST}", offset=offset)
            error = await refused(registry.stub.DownloadBlob(request).read(), Reason.INVALID_FIELD)
            assert fields_of(error) == ["offset"]
        missing = pb.DownloadBlobRequest(name=f"{PROJECT}/blobs/{EMPTY}")
        await refused(registry.stub.DownloadBlob(missing).read(), Reason.NOT_FOUND)


@on_loop
async def test_a_full_disk_is_told_before_it_is_full(tmp_path: Path) -> None:
    """An upload that would eat the reserve is DISK_FULL with a time to retry, and takes no space."""
    async with running_registry(tmp_path, reserve_bytes=2**60) as registry:
        error = await refused(registry.upload(pieces(CONTENT)), Reason.DISK_FULL)
        assert error.retry_after_s
        assert stored_files(registry) == []


@on_loop
async def test_uploads_left_for_long_are_swept_at_a_start(tmp_path: Path) -> None:
    """A part that nobody has added to for a week is removed; a fresh one stays."""
    parts = tmp_path / "uploads" / "default"
    parts.mkdir(parents=True)
    for name in ("old", "new"):
        (parts / f"{name}.part").write_bytes(b"x")
    os.utime(parts / "old.part", (0, 0))
    async with running_registry(tmp_path) as registry:
        assert stored_files(registry) == ["new"]


@on_loop
async def test_memory_stays_bounded_by_the_chunk(tmp_path: Path) -> None:
    """A reader that stops after one message does not make the registry read the whole blob."""
    big = os.urandom(1024) * 32 * 1024  # 32 MiB
    async with running_registry(tmp_path) as registry:
        digest = await registry.put(big, chunk_bytes=1024 * 1024)
        call = registry.stub.DownloadBlob(pb.DownloadBlobRequest(name=f"{PROJECT}/blobs/{digest}"))
        first = await call.read()
        assert isinstance(first, pb.DownloadBlobResponse)
        assert len(first.data) == 1024 * 1024
        call.cancel()
