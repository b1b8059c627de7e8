"""Which layers a version stands on, asked of a registry on a real socket that tells odd lineages."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from services.grpckit.errors import ServiceError
from services.grpckit.peers import open_channel
from services.inference.peers import RegistryPeer
from tests.support.event_loop import on_loop
from tuneforge.errors import Reason
from tuneforge.manifest import Manifest, ManifestFile
from tuneforge.v1 import events_pb2, models_pb2, registry_pb2_grpc, types_pb2

BASE, TUNED, AGAIN, LOOP = (f"projects/default/models/m/versions/{number}" for number in (1, 2, 3, 4))
MODEL, ADAPTER = events_pb2.ARTIFACT_KIND_MODEL, events_pb2.ARTIFACT_KIND_ADAPTER


def version(name: str, kind: Any, base: str = "", base_digest: str = "") -> models_pb2.ModelVersion:
    """Returns a version with one file, whose content is its name."""
    file = types_pb2.ManifestFile(path="file", sha256=f"{int(name[-1]):064d}", size_bytes=1)
    lineage = models_pb2.Lineage(base=types_pb2.VersionRef(version=base, digest=base_digest)) if base else None
    return models_pb2.ModelVersion(name=name, manifest=types_pb2.Manifest(files=[file]), kind=kind, lineage=lineage)


def digest_of(name: str) -> str:
    """Returns the digest of the manifest of a version."""
    return Manifest.of([ManifestFile("file", f"{int(name[-1]):064d}", 1)]).digest


class _TellingRegistry(registry_pb2_grpc.RegistryServiceServicer):
    def __init__(self, versions: Mapping[str, models_pb2.ModelVersion]) -> None:
        self.versions = versions

    async def GetModelVersion(self, request: models_pb2.GetModelVersionRequest, _: Any) -> models_pb2.ModelVersion:
        return self.versions[request.name]


@asynccontextmanager
async def peer(*versions: models_pb2.ModelVersion) -> AsyncIterator[RegistryPeer]:
    """Serves a registry that tells these versions."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    make: Any = _TellingRegistry  # its other methods stay those of the generated class
    servicer = make({each.name: each for each in versions})
    registry_pb2_grpc.add_RegistryServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with open_channel(f"127.0.0.1:{port}") as channel:
            yield RegistryPeer(channel)
    finally:
        await server.stop(0)


@on_loop
async def test_layers_come_base_first() -> None:
    """A version that was tuned twice stands on the base and on the first adapter, in that order."""
    tuned = version(TUNED, ADAPTER, BASE, digest_of(BASE))
    again = version(AGAIN, ADAPTER, TUNED, digest_of(TUNED))
    async with peer(version(BASE, MODEL), tuned, again) as registry:
        layers = await registry.layers(AGAIN)
        assert [(layer.version, layer.kind) for layer in layers] == [
            (BASE, "model"),
            (TUNED, "adapter"),
            (AGAIN, "adapter"),
        ]
        assert [layer.digest for layer in layers] == [digest_of(name) for name in (BASE, TUNED, AGAIN)]
        assert [layer.version for layer in await registry.layers(BASE)] == [BASE]


@on_loop
async def test_another_base_is_a_mismatch() -> None:
    """A base with another digest than the adapter was trained on is BASE_MISMATCH, with both digests."""
    async with peer(version(BASE, MODEL), version(TUNED, ADAPTER, BASE, "f" * 64)) as registry:
        with pytest.raises(ServiceError) as caught:
            await registry.layers(TUNED)
        assert caught.value.reason == Reason.BASE_MISMATCH
        assert caught.value.metadata["expected"] == "f" * 64
        assert caught.value.metadata["digest"] == digest_of(BASE)


@on_loop
async def test_a_lineage_without_end_is_refused() -> None:
    """A version that stands on itself is BASE_MISMATCH instead of a call that never ends."""
    async with peer(version(LOOP, ADAPTER, LOOP, digest_of(LOOP))) as registry:
        with pytest.raises(ServiceError) as caught:
            await registry.layers(LOOP)
        assert caught.value.reason == Reason.BASE_MISMATCH
