"""Holds: the blobs of a checkpoint stay while a scheduler needs them, and no longer."""

import contextlib
from pathlib import Path

import grpc

from services.registry.blobs.settings import StorageSettings
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.registry import PROJECT, RunningRegistry, refused, running_registry
from tests.support.seaweedfs import s3_of_test
from tuneforge.errors import Reason
from tuneforge.v1 import blobs_pb2, retention_pb2, types_pb2

pytestmark = EACH_DATABASE
CHECKPOINT = f"{PROJECT}/jobs/j/checkpoints/20"


async def left(registry: RunningRegistry, manifest: types_pb2.Manifest) -> list[str]:
    """Returns which files of a manifest the registry still has once what nothing needs is gone."""
    await registry.stub.CollectGarbage(retention_pb2.CollectGarbageRequest())
    found = []
    for file in manifest.files:
        name = f"{PROJECT}/blobs/{file.sha256}"
        request = blobs_pb2.GetBlobAccessRequest(name=name, direction=blobs_pb2.BLOB_DIRECTION_READ)
        with contextlib.suppress(grpc.aio.AioRpcError):
            await registry.stub.GetBlobAccess(request)
            found.append(file.path)
    return found


@on_loop
async def test_held_blobs_outlive_the_collector(tmp_path: Path) -> None:
    """Held twice, they stay; of two manifests the blobs of both stay; released, they go; releasing again is fine."""
    storage = StorageSettings(s3=s3_of_test(), collect_every_s=0, grace_s=0)
    async with running_registry(tmp_path, storage=storage) as registry:
        stub = registry.stub
        first = await registry.put_files({"weights.safetensors": b"one", "state.json": b"{}"})
        for _ in range(2):
            held = await stub.HoldBlobs(blobs_pb2.HoldBlobsRequest(name=CHECKPOINT, manifest=first))
            assert (held.name, held.num_blobs) == (CHECKPOINT, 2)
        second = await registry.put_files({"weights.safetensors": b"two", "state.json": b"{}"})
        held = await stub.HoldBlobs(blobs_pb2.HoldBlobsRequest(name=CHECKPOINT, manifest=second))
        assert held.num_blobs == 3
        both = ["state.json", "weights.safetensors"]
        assert sorted(await left(registry, first)) == sorted(await left(registry, second)) == both
        for _ in range(2):
            assert (await stub.ReleaseBlobs(blobs_pb2.ReleaseBlobsRequest(name=CHECKPOINT))).num_blobs == 0
        assert await left(registry, first) == await left(registry, second) == []


@on_loop
async def test_what_is_not_there_cannot_be_held(tmp_path: Path) -> None:
    """Blobs that are missing, or of another size or digest, are named; nothing is held then."""
    async with running_registry(tmp_path) as registry:
        hold = registry.stub.HoldBlobs
        stored = await registry.put_files({"state.json": b"{}"})
        missing = types_pb2.Manifest(
            files=[*stored.files, types_pb2.ManifestFile(path="w", sha256="a" * 64, size_bytes=1)]
        )
        await refused(hold(blobs_pb2.HoldBlobsRequest(name=CHECKPOINT, manifest=missing)), Reason.BLOB_MISSING)
        await refused(hold(blobs_pb2.HoldBlobsRequest(name=CHECKPOINT)), Reason.INVALID_FIELD)
        wrong = types_pb2.Manifest(files=stored.files, digest="b" * 64)
        await refused(hold(blobs_pb2.HoldBlobsRequest(name=CHECKPOINT, manifest=wrong)), Reason.DIGEST_MISMATCH)
        version = blobs_pb2.HoldBlobsRequest(name=f"{PROJECT}/models/m/versions/1", manifest=stored)
        await refused(hold(version), Reason.INVALID_NAME)
