"""SIGKILL of the registry before and after each step on disk of an upload, a version, a publication, a move.

After each kill the next registry over the same folder must have all or nothing of it, and the same call made again must
end as if nothing had happened: one blob, one version, one entry in the log.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message

from tests.support.event_loop import on_loop
from tests.support.killed_at import LIMIT_S, killed_at
from tests.support.registry import PROJECT, RunningRegistry, folder_files, pieces, running_registry
from tests.support.tiny_model import make_tiny_adapter, make_tiny_model, write_rows
from tuneforge.v1 import aliases_pb2, blobs_pb2, datasets_pb2, events_pb2, models_pb2, types_pb2
from tuneforge.v1.registry_pb2_grpc import RegistryServiceStub

CONTENT = bytes(range(256)) * 1200
DIGEST = hashlib.sha256(CONTENT).hexdigest()
MODEL = f"{PROJECT}/models/base"
UNNAMED = pytest.param("unnamed upload", 8, marks=pytest.mark.heavy)  # on disk it does what "upload" does

Act = Callable[[RegistryServiceStub], Message]


@dataclass(frozen=True, slots=True)
class Operation:
    """A change of the registry and how much of it there must be afterwards."""

    act: Act
    count: Callable[[RegistryServiceStub], int]
    """How often it is there: 0 or 1 after a kill, 1 after it was repeated."""


def _upload(stub: RegistryServiceStub) -> Message:
    asked = blobs_pb2.GetBlobAccessRequest(
        name=f"{PROJECT}/blobs/{DIGEST}", direction=blobs_pb2.BLOB_DIRECTION_WRITE, size_bytes=len(CONTENT)
    )
    access = stub.GetBlobAccess(asked)
    if access.is_stored:
        return access
    return stub.UploadBlob(pieces(CONTENT, offset=access.stream.committed_bytes), timeout=LIMIT_S)


def _upload_unnamed(stub: RegistryServiceStub) -> Message:
    """Uploads as the SDK does a large file: the digest comes last, or first where a blob is as large."""
    asked = blobs_pb2.GetBlobAccessRequest(
        name=f"{PROJECT}/uploads/mine", direction=blobs_pb2.BLOB_DIRECTION_WRITE, size_bytes=len(CONTENT)
    )
    access = stub.GetBlobAccess(asked)
    if access.needs_digest:
        return _upload(stub)
    last = blobs_pb2.UploadBlobRequest(sha256=DIGEST)
    messages = itertools.chain(pieces(CONTENT, digest="mine", offset=access.stream.committed_bytes), [last])
    return stub.UploadBlob(messages, timeout=LIMIT_S)


def _stored_blobs(stub: RegistryServiceStub) -> int:
    try:
        parts = list(stub.DownloadBlob(blobs_pb2.DownloadBlobRequest(name=f"{PROJECT}/blobs/{DIGEST}")))
    except grpc.RpcError:
        return 0
    assert b"".join(part.data for part in parts) == CONTENT
    return 1


def _versions(parent: str) -> Callable[[RegistryServiceStub], int]:
    def count(stub: RegistryServiceStub) -> int:
        try:
            listed = stub.ListModelVersions(models_pb2.ListModelVersionsRequest(parent=parent))
        except grpc.RpcError:
            return 0
        for version in listed.versions:
            for file in version.manifest.files:
                blob = blobs_pb2.DownloadBlobRequest(name=f"{PROJECT}/blobs/{file.sha256}")
                assert sum(len(part.data) for part in stub.DownloadBlob(blob)) == file.size_bytes
        return len(listed.versions)

    return count


def _moves(stub: RegistryServiceStub) -> int:
    try:
        log = stub.ListAliasChanges(aliases_pb2.ListAliasChangesRequest(parent=f"{MODEL}/aliases/production"))
        alias = stub.GetAlias(aliases_pb2.GetAliasRequest(name=f"{MODEL}/aliases/production"))
    except grpc.RpcError:
        return 0
    assert alias.version == log.changes[0].to_version
    return len(log.changes)


async def _prepared(registry: RunningRegistry, folder: Path) -> dict[str, Operation]:
    base = await registry.imported(await registry.model("base"), make_tiny_model(folder / "base"))
    dataset = await registry.dataset()
    rows = await registry.put_files({"train.jsonl": write_rows(folder / "rows.jsonl").read_bytes()})
    adapter = await registry.put_files(folder_files(make_tiny_adapter(folder / "adapter")))
    version = datasets_pb2.CreateDatasetVersionRequest(parent=dataset, manifest=rows, request_id="one")
    publish = models_pb2.PublishVersionRequest(
        parent=f"{PROJECT}/models/result",
        manifest=adapter,
        kind=events_pb2.ARTIFACT_KIND_ADAPTER,
        lineage=models_pb2.Lineage(
            base=types_pb2.VersionRef(version=base.name, digest=base.manifest.digest), job=f"{PROJECT}/jobs/job-1"
        ),
    )
    move = aliases_pb2.SetAliasRequest(name=f"{MODEL}/aliases/production", version=base.name, request_id="two")
    listed = datasets_pb2.ListDatasetVersionsRequest(parent=dataset)
    return {
        "upload": Operation(_upload, _stored_blobs),
        "unnamed upload": Operation(_upload_unnamed, _stored_blobs),
        "dataset": Operation(
            lambda stub: stub.CreateDatasetVersion(version, timeout=LIMIT_S),
            lambda stub: len(stub.ListDatasetVersions(listed).versions),
        ),
        "publish": Operation(
            lambda stub: stub.PublishVersion(publish, timeout=LIMIT_S), _versions(f"{PROJECT}/models/result")
        ),
        "alias": Operation(lambda stub: stub.SetAlias(move, timeout=LIMIT_S), _moves),
    }


def _acted_until_killed(operation: Operation, step: int, data: Path) -> bool:
    """Acts on a registry that dies at a step; returns whether it died."""
    settings = {
        "TUNEFORGE_DATA": str(data.parent),
        "TUNEFORGE_REGISTRY_LISTEN": "127.0.0.1:0",
        "TUNEFORGE_REGISTRY_METRICS_LISTEN": "",
        "TUNEFORGE_REGISTRY_RESERVE_BYTES": "0",
    }
    with (
        killed_at(step, "services.registry", settings, data.parent / "registry.log") as service,
        grpc.insecure_channel(service.address) as channel,
    ):
        stub = RegistryServiceStub(channel)
        operation.count(stub)  # whatever the first call of a process does is not what is tested
        service.arm()
        try:
            operation.act(stub)
        except grpc.RpcError:
            service.expect_killed()
            return True
        return False


@pytest.mark.parametrize(("name", "fewest"), [("upload", 8), UNNAMED, ("dataset", 2), ("publish", 2), ("alias", 2)])
@on_loop
async def test_all_or_nothing_whenever_it_is_killed(name: str, fewest: int, tmp_path: Path) -> None:
    """Each step in turn is the last one; the next registry has all or nothing, and the call repeated is one change."""
    async with running_registry(tmp_path / "prepared" / "registry") as registry:
        operation = (await _prepared(registry, tmp_path))[name]
    for step in itertools.count(1):
        folder = tmp_path / f"killed-at-{step}"
        shutil.copytree(tmp_path / "prepared", folder)
        was_killed = _acted_until_killed(operation, step, folder / "registry")
        async with running_registry(folder / "registry") as registry:
            found = await asyncio.to_thread(operation.count, registry.blocking)
            assert found in ({0, 1} if was_killed else {1})
            await asyncio.to_thread(operation.act, registry.blocking)
            assert await asyncio.to_thread(operation.count, registry.blocking) == 1
        assert not list(folder.rglob("*.part"))
        if not was_killed:
            assert step > fewest, (folder / "registry.log").read_text()
            return
