"""SIGKILL of the registry before and after each of its steps on disk during an import.

After each kill the next registry over the same folder has the version or has it not, never one without its source; the
same call made again ends with one version and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import grpc
import pytest

from tests.support.elsewhere import Elsewhere, dataset_request, elsewhere
from tests.support.event_loop import on_loop
from tests.support.killed_at import LIMIT_S, killed_at
from tests.support.registry import PROJECT, running_registry
from tuneforge.v1 import datasets_pb2, lineage_pb2, sources_pb2
from tuneforge.v1.registry_pb2_grpc import RegistryServiceStub

DATASET = f"{PROJECT}/datasets/greetings"


def versions(stub: RegistryServiceStub) -> list[datasets_pb2.DatasetVersion]:
    """Returns the versions that there are."""
    return list(stub.ListDatasetVersions(datasets_pb2.ListDatasetVersionsRequest(parent=DATASET)).versions)


def fetched(stub: RegistryServiceStub, request: sources_pb2.ImportDatasetVersionRequest) -> datasets_pb2.DatasetVersion:
    """Imports and returns the version."""
    return list(stub.ImportDatasetVersion(request, timeout=LIMIT_S))[-1].version


def was_killed(step: int, data: Path, request: sources_pb2.ImportDatasetVersionRequest, sources: Path) -> bool:
    """Imports at a registry that dies at a step; returns whether it died."""
    settings = {
        "TUNEFORGE_DATA": str(data.parent),
        "TUNEFORGE_REGISTRY_LISTEN": "127.0.0.1:0",
        "TUNEFORGE_REGISTRY_METRICS_LISTEN": "",
        "TUNEFORGE_REGISTRY_RESERVE_BYTES": "0",
        "TUNEFORGE_REGISTRY_SOURCES_FILE": str(sources),
    }
    with (
        killed_at(step, "services.registry", settings, data.parent / "registry.log") as service,
        grpc.insecure_channel(service.address) as channel,
    ):
        stub = RegistryServiceStub(channel)
        versions(stub)  # whatever the first call of a process does is not what is tested
        service.arm()
        try:
            fetched(stub, request)
        except grpc.RpcError:
            service.expect_killed()
            return True
        return False


async def check_after(there: Elsewhere, folder: Path, uri: str, *, is_killed: bool) -> None:
    """Holds the next registry over the folder to its word."""
    request = dataset_request(DATASET, uri, request_id="one")
    async with running_registry(folder / "registry", sources=there.settings()) as registry:
        found = await asyncio.to_thread(versions, registry.blocking)
        assert len(found) in ({0, 1} if is_killed else {1})
        assert all(version.source.uri == uri for version in found)
        again = await asyncio.to_thread(fetched, registry.blocking, request)
        assert [version.name for version in await asyncio.to_thread(versions, registry.blocking)] == [again.name]
        assert again.source.uri == uri
        query = lineage_pb2.QueryLineageRequest(name=again.name, direction=lineage_pb2.LINEAGE_DIRECTION_ANCESTORS)
        parents = await registry.stub.QueryLineage(query)
        assert uri in str(parents)
    assert not list((folder / "registry" / "imports" / "default").iterdir())


@pytest.mark.parametrize("step", range(3, 45, 4))
@on_loop
async def test_an_import_is_all_or_nothing_whenever_the_registry_is_killed(step: int, tmp_path: Path) -> None:
    """Every fourth of its forty and some steps is the last one: folders, parts, commits, the journal, the sweeping."""
    rows = b"".join(json.dumps({"prompt": f"Say {n}.", "completion": str(n)}).encode() + b"\n" for n in range(50))
    with elsewhere(tmp_path / "there") as there:
        there.files.files["/rows.jsonl"] = rows
        uri = there.files.url("/rows.jsonl")
        settings = there.settings()
        folder = tmp_path / "data"
        async with running_registry(folder / "registry", sources=settings) as registry:
            assert await registry.dataset() == DATASET
        assert settings.file is not None
        request = dataset_request(DATASET, uri, request_id="one")
        is_killed = await asyncio.to_thread(was_killed, step, folder / "registry", request, settings.file)
        assert is_killed or step > 35, (folder / "registry.log").read_text()
        await check_after(there, folder, uri, is_killed=is_killed)
