"""The shared parts of the registry: readings that are shared, and what is left open when callers leave."""

import asyncio
import hashlib
import io
import json
import struct
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from services.grpckit.errors import Reason, ServiceError
from services.registry.datasets.examining import Examinations, Found, ask
from services.registry.library import Library
from services.registry.models.safetensors_header import read_tensors
from tests.support.event_loop import on_loop
from tests.support.library import open_library, store
from tests.support.seaweedfs import Bucket
from tests.support.tiny_model import write_rows
from tuneforge.manifest import Manifest, ManifestFile, sha256_file


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    """Gives the open parts of a registry."""
    with open_library(tmp_path / "data") as library:
        yield library


def test_calls_for_one_content_share_its_reading() -> None:
    """Callers at the same time and later get the same findings, and one who leaves does not end it for the others."""
    examinations, may_end, readings = Examinations(), asyncio.Event(), list[int]()

    async def read() -> Found:
        readings.append(1)
        await may_end.wait()
        return {"rows": 8}

    @on_loop
    async def check() -> None:
        callers = [asyncio.create_task(examinations.share("a", read)) for _ in range(4)]
        await asyncio.sleep(0)  # hand over, so that all of them wait
        callers[0].cancel()
        may_end.set()
        found = await asyncio.gather(*callers, return_exceptions=True)
        assert isinstance(found[0], asyncio.CancelledError)
        assert found[1:] == [{"rows": 8}] * 3
        assert await examinations.share("a", read) is found[1]
        assert readings == [1]

    check()


def test_a_reading_that_failed_is_tried_again(library: Library, tmp_path: Path) -> None:
    """Files that could not be read once are not given up for ever."""
    rows = write_rows(tmp_path / "rows.jsonl").read_bytes()
    file = ManifestFile(path="rows.jsonl", sha256=hashlib.sha256(rows).hexdigest(), size_bytes=len(rows))
    manifest = Manifest.of([file])

    async def read() -> Found:
        async with library.fetched(manifest) as folder:
            return await library.check(ask, folder, {"kind": "examine", "split": [0.0, 0]})

    @on_loop
    async def check() -> None:
        with pytest.raises(ServiceError) as caught:
            await library.examinations.share(manifest.digest, read)
        assert caught.value.reason is Reason.BLOB_DAMAGED
        await store(library, rows)
        found = await library.examinations.share(manifest.digest, read)
        assert found["statistics"]["rows"] == 8

    check()


def test_what_a_cancelled_caller_opened_is_closed(library: Library) -> None:
    """The thread that opens is not stopped by a cancellation; what it opened is closed all the same."""
    may_open, closed = threading.Event(), threading.Event()

    class Opened:
        def close(self) -> None:
            closed.set()

    def slow_open() -> Opened:
        may_open.wait()
        return Opened()

    @on_loop
    async def check() -> None:
        opening = asyncio.create_task(library.open(slow_open))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        may_open.set()
        assert await asyncio.to_thread(closed.wait, 10)

    check()


def s3_library(bucket: Bucket, data: Path, **keywords: int) -> AbstractContextManager[Library]:
    """Opens a library whose blobs live in a bucket."""
    return open_library(data, s3=bucket.settings(), **keywords)


def test_blobs_in_s3_are_brought_and_a_bounded_number_kept(tmp_path: Path, bucket: Bucket) -> None:
    """Files are there while they are used; afterwards the ones used last are kept, up to the limit."""
    contents = [bytes([number]) * 1000 for number in range(4)]

    @on_loop
    async def check(library: Library) -> None:
        files = [await store(library, content, f"{number}.bin") for number, content in enumerate(contents)]
        manifest = Manifest.of(files)
        async with library.fetched(manifest) as folder:
            assert [folder.paths[file.path].read_bytes() for file in manifest.files] == contents
        kept = [path for path in (tmp_path / "cache").glob("*/*") if path.is_file()]
        assert len(kept) == 2
        for path in kept:
            path.write_bytes(b"rotten")  # what an earlier process left is not believed
        cached.extend(kept)

    cached: list[Path] = []
    with s3_library(bucket, tmp_path, cache_bytes=2500) as library:
        check(library)

    @on_loop
    async def again(library: Library) -> None:
        files = [ManifestFile(f"{path.name[:8]}", path.name, 1000) for path in cached]
        async with library.fetched(Manifest.of(files)) as folder:
            assert {sha256_file(path) for path in folder.paths.values()} == {path.name for path in cached}

    with s3_library(bucket, tmp_path, cache_bytes=2500) as library:
        again(library)


def test_of_large_weights_only_the_header_is_brought(tmp_path: Path, bucket: Bucket) -> None:
    """The checks of a model see names, shapes and the true size; the weights stay where they are."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [3 << 20], "data_offsets": [0, 3 << 20]}}).encode()
    weights = struct.pack("<Q", len(header)) + header + bytes(range(256)) * (3 << 12)

    @on_loop
    async def check(library: Library) -> None:
        manifest = Manifest.of([await store(library, weights, "model.safetensors")])
        async with library.fetched(manifest, headers_only=True) as folder:
            path = folder.paths["model.safetensors"]
            assert path.stat().st_size == len(weights)
            assert path.stat().st_blocks * 512 <= 2 << 20
            assert [(tensor.name, tensor.shape) for tensor in read_tensors(path)] == [("w", (3 << 20,))]
        assert not path.exists()
        async with library.fetched(manifest) as folder:
            assert folder.paths["model.safetensors"].read_bytes() == weights

    with s3_library(bucket, tmp_path) as library:
        check(library)


def test_a_copy_that_is_another_content_is_refused(tmp_path: Path, bucket: Bucket) -> None:
    """Bytes that changed in the store are found when they are fetched."""

    @on_loop
    async def check(library: Library) -> None:
        manifest = Manifest.of([await store(library, b"right", "file")])
        (key,) = bucket.keys("tests/blobs")
        bucket.client.put_object(bucket.name, key, io.BytesIO(b"wrong"), 5)
        with pytest.raises(ServiceError) as caught:
            async with library.fetched(manifest):
                pass
        assert caught.value.reason is Reason.BLOB_DAMAGED
        bucket.client.put_object(bucket.name, key, io.BytesIO(b"right"), 5)
        async with library.fetched(manifest):
            pass
        bucket.client.put_object(bucket.name, key, io.BytesIO(b"wrong"), 5)
        async with library.fetched(manifest) as folder:
            assert folder.paths["file"].read_bytes() == b"right"  # the copy
        with pytest.raises(ServiceError):
            async with library.fetched(manifest, is_fresh=True):
                pass

    with s3_library(bucket, tmp_path) as library:
        check(library)
