"""SIGKILL of the registry before and after each step of a collection, and of an upload into S3.

After each kill the next registry still has every byte that a version needs, and the same call made again ends as if
nothing had happened.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import urllib3

from services.registry.blobs.home import new_place
from services.registry.blobs.s3 import S3Store
from services.registry.blobs.settings import StorageSettings
from tests.support.event_loop import on_loop
from tests.support.killed_at import LIMIT_S, killed_at
from tests.support.registry import PROJECT, RunningRegistry, pieces, running_registry
from tests.support.seaweedfs import EACH_HOME, s3_of_test
from tests.support.tiny_model import write_rows
from tuneforge.v1 import blobs_pb2, datasets_pb2, retention_pb2
from tuneforge.v1.registry_pb2_grpc import RegistryServiceStub

CONTENT = bytes(range(256)) * 4400  # above what goes through the registry
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@dataclass(frozen=True, slots=True)
class Prepared:
    """What stands in a registry before it is killed; each step begins with it anew."""

    data: Path
    objects: dict[str, bytes]
    """Place -> content, where the home is a bucket."""
    needed: frozenset[str]
    """Digests of what a version needs."""

    def restore(self, data: Path) -> None:
        """Puts it into a data folder and, where that is the home, into the bucket."""
        shutil.copytree(self.data, data)
        settings = s3_of_test()
        if settings is None:
            return
        store = S3Store(settings)
        for each in list(store.listing()):
            store.delete(each.place)
        for place, content in self.objects.items():
            (data / "restored").write_bytes(content)
            store.keep(data / "restored", place, "")


async def _prepare(registry: RunningRegistry, folder: Path) -> frozenset[str]:
    """Leaves a version, a blob of no version, an upload begun, and a content without a row; returns what is needed."""
    stub, dataset = registry.stub, await registry.dataset()
    manifest = await registry.put_files({"train.jsonl": write_rows(folder / "rows.jsonl", 3).read_bytes()})
    version = await stub.CreateDatasetVersion(
        datasets_pb2.CreateDatasetVersionRequest(parent=dataset, manifest=manifest)
    )
    await registry.put(b"of no version")
    await registry.upload([next(pieces(b"begun", chunk_bytes=2))])
    (folder / "lost").write_bytes(b"lost")
    place = new_place(hashlib.sha256(b"lost").hexdigest())
    settings = s3_of_test()
    if settings is not None:
        S3Store(settings).keep(folder / "lost", place, "")
    else:
        path = registry.data / "blobs" / place
        path.parent.mkdir(exist_ok=True)
        (folder / "lost").replace(path)
        os.utime(path, (1, 1))
    return frozenset(file.sha256 for file in version.manifest.files)


def _content(place: str) -> bytes:
    settings = s3_of_test()
    assert settings is not None
    store = S3Store(settings)
    source = store.open(place, 0, store.size(place) or 0)
    try:
        return source.read()
    finally:
        source.close()


def _stored(data: Path) -> list[str]:
    settings = s3_of_test()
    if settings is None:
        places = [f"{path.parent.name}/{path.name}" for path in (data / "blobs").glob("*/*")]
    else:
        places = [each.place for each in S3Store(settings).listing()]
    return sorted(place.rpartition("/")[2].partition(".")[0] for place in places)


def _settings(data: Path) -> dict[str, str]:
    settings = {
        "TUNEFORGE_DATA": str(data.parent),
        "TUNEFORGE_REGISTRY_LISTEN": "127.0.0.1:0",
        "TUNEFORGE_REGISTRY_METRICS_LISTEN": "",
        "TUNEFORGE_REGISTRY_RESERVE_BYTES": "0",
        "TUNEFORGE_REGISTRY_GRACE_S": "0",
        "TUNEFORGE_REGISTRY_COLLECT_EVERY_S": "0",
    }
    s3 = s3_of_test()
    if s3 is not None:
        settings |= {
            "TUNEFORGE_REGISTRY_BLOBS": f"s3://{s3.bucket}/{s3.prefix}",
            "TUNEFORGE_REGISTRY_S3_ENDPOINT": s3.endpoint,
            "AWS_ACCESS_KEY_ID": s3.credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": s3.credentials.secret_key,
        }
    return settings


def _until_killed(act: Callable[[RegistryServiceStub], object], step: int, data: Path) -> bool:
    """Acts on a registry that dies at a step; returns whether it died."""
    with (
        killed_at(step, "services.registry", _settings(data), data.parent / "registry.log") as service,
        grpc.insecure_channel(service.address) as channel,
    ):
        stub = RegistryServiceStub(channel)
        stub.ListDatasets(datasets_pb2.ListDatasetsRequest(parent=PROJECT))  # the first call of a process
        service.arm()
        try:
            act(stub)
        except grpc.RpcError:
            service.expect_killed()
            return True
        return False


def _collect(stub: RegistryServiceStub) -> retention_pb2.CollectGarbageResponse:
    return stub.CollectGarbage(retention_pb2.CollectGarbageRequest(), timeout=LIMIT_S)


def _upload(stub: RegistryServiceStub) -> None:
    """Uploads by URL, as the SDK does."""
    request = blobs_pb2.GetBlobAccessRequest(
        name=f"{PROJECT}/blobs/{DIGEST}",
        direction=blobs_pb2.BLOB_DIRECTION_WRITE,
        size_bytes=len(CONTENT),
        way=blobs_pb2.BLOB_WAY_PRESIGNED,
    )
    access = stub.GetBlobAccess(request, timeout=LIMIT_S)
    if access.is_stored:
        return
    for part in access.presigned.parts:
        if not part.is_stored:
            answer = urllib3.PoolManager(retries=False).request(
                "PUT", part.url, body=CONTENT, headers=dict(part.headers)
            )
            assert answer.status == 200
    name = f"{PROJECT}/uploads/{DIGEST}"
    assert stub.CompleteUpload(blobs_pb2.CompleteUploadRequest(name=name), timeout=LIMIT_S).is_stored


def _download(stub: RegistryServiceStub, digest: str) -> str:
    request = blobs_pb2.DownloadBlobRequest(name=f"{PROJECT}/blobs/{digest}")
    return hashlib.sha256(b"".join(message.data for message in stub.DownloadBlob(request))).hexdigest()


@EACH_HOME
def test_a_collection_killed_anywhere_is_finished_by_the_next(tmp_path: Path) -> None:
    """What a version needs is there after each kill; the next run leaves that alone, and nothing else."""
    storage = StorageSettings(s3=s3_of_test(), collect_every_s=0, grace_s=0)

    @on_loop
    async def prepare() -> None:
        async with running_registry(tmp_path / "prepared", storage=storage) as registry:
            needed.update(await _prepare(registry, tmp_path))

    @on_loop
    async def is_killed_at(step: int, data: Path) -> None:
        was_killed.append(await asyncio.to_thread(_until_killed, _collect, step, data))
        async with running_registry(data, storage=storage) as registry:
            for digest in needed:
                assert await asyncio.to_thread(_download, registry.blocking, digest) == digest
            await asyncio.to_thread(_collect, registry.blocking)
            assert (await asyncio.to_thread(_collect, registry.blocking)).num_contents == 0
            assert _stored(data) == sorted(needed)
            for digest in needed:
                assert await asyncio.to_thread(_download, registry.blocking, digest) == digest

    needed: set[str] = set()
    prepare()
    settings = s3_of_test()
    places = [] if settings is None else [each.place for each in S3Store(settings).listing()]
    prepared = Prepared(tmp_path / "prepared", {place: _content(place) for place in places}, frozenset(needed))
    was_killed = [True]
    while was_killed[-1]:
        data = tmp_path / f"killed-at-{len(was_killed)}" / "registry"
        prepared.restore(data)
        is_killed_at(len(was_killed), data)
    assert len(was_killed) > 8, (tmp_path / "killed-at-1" / "registry.log").read_text()


@pytest.mark.parametrize("each_home", ["s3"], indirect=True)
@EACH_HOME
def test_an_upload_into_s3_killed_anywhere_is_repeated(tmp_path: Path) -> None:
    """The blob is there whole or not at all; sent again it is there, and what was left behind is collected."""
    storage = StorageSettings(s3=s3_of_test(), collect_every_s=0, grace_s=0)

    @on_loop
    async def is_killed_at(step: int, data: Path) -> None:
        was_killed.append(await asyncio.to_thread(_until_killed, _upload, step, data))
        async with running_registry(data, storage=storage) as registry:
            await asyncio.to_thread(_upload, registry.blocking)
            assert await asyncio.to_thread(_download, registry.blocking, DIGEST) == DIGEST
            await asyncio.to_thread(_collect, registry.blocking)
            assert _stored(data) == []  # no version needs it, and nothing of it is left

    data = tmp_path / "data" / "registry"  # one for all: a bucket belongs to one registry
    data.mkdir(parents=True)
    was_killed = [True]
    while was_killed[-1]:
        is_killed_at(len(was_killed), data)
    assert len(was_killed) > 4
