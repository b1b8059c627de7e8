"""Bytes that went bad where they are stored: found, told, and replaced by the next upload of the same content."""

import asyncio
import hashlib
import io
import os
from pathlib import Path

import pytest

from services.registry.blobs.s3 import S3Store
from services.registry.blobs.settings import StorageSettings
from tests.contract.test_registry_signing import problems
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.registry import PROJECT, RunningRegistry, refused, running_registry
from tests.support.seaweedfs import EACH_HOME, s3_of_test
from tests.support.tiny_model import make_tiny_model
from tuneforge.blobs import BlobClient
from tuneforge.errors import Reason
from tuneforge.manifest import StoredDamage
from tuneforge.v1 import blobs_pb2 as pb
from tuneforge.v1 import retention_pb2

pytestmark = [EACH_DATABASE, EACH_HOME]

SMALL = b"precious " * 100
LARGE = os.urandom(3 * 1024 * 1024)
"""Goes by URL where the home is an object store."""


def places_of(registry: RunningRegistry, digest: str) -> list[str]:
    """Returns where contents of a digest lie."""
    settings = s3_of_test()
    if settings is not None:
        return sorted(each.place for each in S3Store(settings).listing() if digest in each.place)
    return sorted(str(path) for path in (registry.data / "blobs").rglob(f"*{digest}*"))


def put_at(place: str, content: bytes) -> None:
    """Writes bytes to a place behind the registry's back."""
    settings = s3_of_test()
    if settings is None:
        Path(place).chmod(0o600)
        Path(place).write_bytes(content)
        return
    store = S3Store(settings)
    key = f"{settings.prefix}/blobs/{place}" if settings.prefix else f"blobs/{place}"
    store._client.put_object(settings.bucket, key, io.BytesIO(content), len(content))


def flipped(content: bytes) -> bytes:
    """Returns content of the same size with one bit changed in its middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


async def is_stored(registry: RunningRegistry, content: bytes) -> bool:
    """Returns whether the registry says that a content need not be sent."""
    digest = hashlib.sha256(content).hexdigest()
    request = pb.GetBlobAccessRequest(
        name=f"{PROJECT}/blobs/{digest}", direction=pb.BLOB_DIRECTION_WRITE, size_bytes=len(content)
    )
    return (await registry.stub.GetBlobAccess(request)).is_stored


async def check(registry: RunningRegistry, digest: str) -> pb.CheckBlobResponse:
    """Has the registry look at a blob."""
    return await registry.stub.CheckBlob(pb.CheckBlobRequest(name=f"{PROJECT}/blobs/{digest}"))


def upload(registry: RunningRegistry, folder: Path, content: bytes) -> None:
    """Uploads a file as a client does."""
    path = folder / "again"
    path.write_bytes(content)
    with BlobClient.connect(registry.address, "default") as blobs:
        blobs.upload_file(path)


def fetch(registry: RunningRegistry, content: bytes, target: Path) -> bytes:
    """Downloads a content as a client does, and returns what came."""
    with BlobClient.connect(registry.address, "default") as blobs:
        blobs.download(hashlib.sha256(content).hexdigest(), len(content), target)
    return target.read_bytes()


@on_loop
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
async def test_who_gets_damaged_bytes_makes_the_registry_take_them_anew(content: bytes, tmp_path: Path) -> None:
    """A download says that the registry's copy is damaged; from then on an upload is wanted, and heals it for all."""
    async with running_registry(tmp_path / "data", storage=StorageSettings(s3=s3_of_test(), grace_s=-1)) as registry:
        await asyncio.to_thread(upload, registry, tmp_path, content)
        digest = hashlib.sha256(content).hexdigest()
        (bad,) = places_of(registry, digest)
        put_at(bad, flipped(content))
        assert await is_stored(registry, content)  # nobody has read it yet
        with pytest.raises(StoredDamage, match=str(tmp_path / "first")):
            await asyncio.to_thread(fetch, registry, content, tmp_path / "first")
        assert not await is_stored(registry, content)
        await asyncio.to_thread(upload, registry, tmp_path, content)
        assert await is_stored(registry, content)
        assert await asyncio.to_thread(fetch, registry, content, tmp_path / "second") == content
        assert len(places_of(registry, digest)) == 2
        await registry.stub.CollectGarbage(retention_pb2.CollectGarbageRequest())
        assert bad not in places_of(registry, digest)


@on_loop
async def test_a_version_that_was_found_damaged_loads_again_after_an_upload(tmp_path: Path) -> None:
    """The verification names the files; the same bytes, sent again, make it whole under its old name and digest."""
    async with running_registry(tmp_path / "data") as registry:
        folder = make_tiny_model(tmp_path / "tiny")
        version = await registry.imported(await registry.model(), folder)
        digests = {file.path: file.sha256 for file in version.manifest.files}
        for path in ("config.json", "model.safetensors"):
            (place,) = places_of(registry, digests[path])
            put_at(place, flipped((folder / path).read_bytes()))
        assert [path for _, path in await problems(registry, version.name)] == ["config.json", "model.safetensors"]
        assert await is_stored(registry, (folder / "tokenizer.json").read_bytes())
        for path in ("config.json", "model.safetensors"):
            await asyncio.to_thread(upload, registry, tmp_path, (folder / path).read_bytes())
        assert await problems(registry, version.name) == []
        again = await registry.imported(version.name.partition("/versions/")[0], folder)
        assert (again.name, again.manifest.digest) == (version.name, version.manifest.digest)


@on_loop
async def test_a_check_tells_what_is_stored_and_only_of_ones_own(tmp_path: Path) -> None:
    """Whole, damaged, gone, restored from a backup; of a blob that another project has there is no word."""
    async with running_registry(tmp_path / "data") as registry:
        digest = await registry.put(SMALL)
        assert (await check(registry, digest)).is_whole
        (place,) = places_of(registry, digest)
        put_at(place, flipped(SMALL))
        found = await asyncio.gather(*(check(registry, digest) for _ in range(4)))
        assert [(each.is_whole, digest in each.problem) for each in found] == [(False, True)] * 4
        put_at(place, SMALL[:-1])
        assert "in place of" in (await check(registry, digest)).problem
        assert not await is_stored(registry, SMALL)
        put_at(place, SMALL)
        assert (await check(registry, digest)).problem == ""
        assert await is_stored(registry, SMALL)
        foreign = pb.CheckBlobRequest(name=f"projects/other/blobs/{digest}")
        await refused(registry.stub.CheckBlob(foreign), Reason.NOT_FOUND)


@on_loop
async def test_uploads_that_race_for_a_damaged_place_leave_one_that_counts(tmp_path: Path) -> None:
    """From two projects at once: each has the blob afterwards, whole, and one place holds it."""
    async with running_registry(tmp_path / "data", storage=StorageSettings(s3=s3_of_test(), grace_s=-1)) as registry:
        digest = await registry.put(SMALL)
        (bad,) = places_of(registry, digest)
        put_at(bad, flipped(SMALL))
        assert not (await check(registry, digest)).is_whole
        await asyncio.gather(registry.put(SMALL), registry.put(SMALL, project="projects/other"))
        assert (await check(registry, digest)).is_whole
        other = await registry.stub.CheckBlob(pb.CheckBlobRequest(name=f"projects/other/blobs/{digest}"))
        assert other.is_whole
