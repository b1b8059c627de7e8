"""A registry that keeps a few versions in memory, on a real socket; for tests of the scheduler."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from services.grpckit.errors import ServiceError, not_found
from services.grpckit.status import RichStatus
from tuneforge.v1 import (
    blobs_pb2,
    datasets_pb2,
    events_pb2,
    models_pb2,
    registry_pb2_grpc,
    retention_pb2,
    types_pb2,
    validations_pb2,
)

BASE = "projects/p/models/tiny/versions/1"
ALIAS = "projects/p/models/tiny/aliases/production"
DATA = "projects/p/datasets/rows/versions/3"
HIDDEN = 64


def tiny_architecture() -> models_pb2.Architecture:
    """Returns the architecture of a Llama with two layers."""
    names = [f"model.layers.{layer}.self_attn.{side}_proj.weight" for layer in range(2) for side in "qkvo"]
    tensors = [models_pb2.TensorShape(name=name, shape=[HIDDEN, HIDDEN], dtype="F32") for name in names]
    tensors.append(models_pb2.TensorShape(name="model.embed_tokens.weight", shape=[256, HIDDEN], dtype="F32"))
    return models_pb2.Architecture(
        class_name="LlamaForCausalLM",
        config_json=json.dumps({"max_position_embeddings": 512}),
        tensors=tensors,
        parameters=8 * HIDDEN * HIDDEN + 256 * HIDDEN,
    )


def _base() -> models_pb2.ModelVersion:
    version = models_pb2.ModelVersion(
        name=BASE, kind=events_pb2.ARTIFACT_KIND_MODEL, architecture=tiny_architecture(), size_bytes=1
    )
    version.manifest.files.add(path="model.safetensors", sha256="b" * 64, size_bytes=1)
    version.manifest.digest = "1" * 64
    return version


def _rows() -> datasets_pb2.DatasetVersion:
    version = datasets_pb2.DatasetVersion(name=DATA, rows=10, size_bytes=1, shape=datasets_pb2.ROW_SHAPE_MESSAGES)
    version.manifest.files.add(path="rows.jsonl", sha256="c" * 64, size_bytes=1)
    version.manifest.digest = "3" * 64
    return version


@dataclass
class FakeRegistry:
    """What it has, and what was published to it."""

    models: dict[str, models_pb2.ModelVersion] = field(default_factory=lambda: {BASE: _base(), ALIAS: _base()})
    datasets: dict[str, datasets_pb2.DatasetVersion] = field(
        default_factory=lambda: {DATA: _rows(), "projects/p/datasets/rows/versions/latest": _rows()}
    )
    published: dict[str, models_pb2.PublishVersionRequest] = field(default_factory=dict)
    """By job."""
    holds: set[tuple[str, str]] = field(default_factory=set)
    """Pairs of a holder and a version."""
    hold_calls: int = 0
    is_old: bool = False
    """It is of a release that holds for one holder a call."""
    refused_holders: set[str] = field(default_factory=set)
    """Releases that name one of them are refused."""
    held: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when `holds` was changed by a call."""
    deleted: set[str] = field(default_factory=set)
    """Versions that were there when their names were resolved, and are not any more."""
    calls: list[str] = field(default_factory=list)
    is_away: bool = False
    """Every call is answered UNAVAILABLE."""
    lost_replies: int = 0
    """So many publications are carried out and answered UNAVAILABLE."""
    refusal: ServiceError | None = None
    """Publications are answered with it."""
    held_blobs: dict[str, types_pb2.Manifest] = field(default_factory=dict)
    """By checkpoint: what is kept for it."""
    reports: dict[str, validations_pb2.CreateValidationReportRequest] = field(default_factory=dict)
    """By request id."""
    lost_manifests: set[str] = field(default_factory=set)
    """Digests of manifests whose blobs are not there."""
    address: str = ""


class _Servicer(registry_pb2_grpc.RegistryServiceServicer):
    def __init__(self, fake: FakeRegistry) -> None:
        self.fake = fake

    async def _note(self, name: str, context: Any) -> None:
        self.fake.calls.append(name)
        await self._answering(context)

    async def _answering(self, context: Any) -> None:
        if self.fake.is_away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")

    async def GetModelVersion(self, request: models_pb2.GetModelVersionRequest, context: Any) -> Any:
        await self._note("GetModelVersion", context)
        if request.name not in self.fake.models:
            await context.abort_with_status(RichStatus(not_found("model version", request.name), "r"))
        return self.fake.models[request.name]

    async def GetDatasetVersion(self, request: datasets_pb2.GetDatasetVersionRequest, context: Any) -> Any:
        await self._note("GetDatasetVersion", context)
        if request.name not in self.fake.datasets:
            await context.abort_with_status(RichStatus(not_found("data set version", request.name), "r"))
        return self.fake.datasets[request.name]

    async def HoldVersions(self, request: retention_pb2.HoldVersionsRequest, context: Any) -> Any:
        await self._answering(context)
        self.fake.hold_calls += 1
        holders = [(request.holder, request.versions)]
        if not self.fake.is_old:
            holders += [(other.holder, other.versions) for other in request.others]
        if not all(versions for _, versions in holders):  # as the real one
            await context.abort_with_status(RichStatus(ServiceError("INVALID_FIELD", "versions: has 0 names"), "r"))
        wanted = [(holder, version) for holder, versions in holders for version in versions]
        for _, version in wanted:
            if version in self.fake.deleted:
                await context.abort_with_status(RichStatus(not_found("version", version), "r"))
        self.fake.holds.update(wanted)
        self.fake.held.set()
        return retention_pb2.HoldVersionsResponse(num_holders=0 if self.fake.is_old else len(holders))

    async def ReleaseVersions(self, request: retention_pb2.ReleaseVersionsRequest, context: Any) -> Any:
        await self._answering(context)
        others = [(each.holder, each.versions) for each in request.others]
        if self.fake.refused_holders & {request.holder, *(holder for holder, _ in others)}:
            await context.abort_with_status(RichStatus(ServiceError("PERMISSION_DENIED", "not of your projects"), "r"))
        for holder, versions in [(request.holder, request.versions), *others]:
            gone = {pair for pair in self.fake.holds if pair[0] == holder and (not versions or pair[1] in versions)}
            self.fake.holds -= gone
        self.fake.held.set()
        return retention_pb2.ReleaseVersionsResponse(num_holders=1 + len(request.others))

    async def ListHolds(self, _: retention_pb2.ListHoldsRequest, context: Any) -> Any:
        await self._answering(context)
        holds = [retention_pb2.Hold(holder=holder, version=version) for holder, version in sorted(self.fake.holds)]
        return retention_pb2.ListHoldsResponse(holds=holds)

    async def PublishVersion(self, request: models_pb2.PublishVersionRequest, context: Any) -> Any:
        await self._note("PublishVersion", context)
        fake = self.fake
        if fake.refusal is not None:
            await context.abort_with_status(RichStatus(fake.refusal, "r"))
        known = fake.published.setdefault(request.lineage.job, request)
        if known.manifest != request.manifest:
            error = ServiceError("ALREADY_PUBLISHED", f"{request.lineage.job} has published another manifest")
            await context.abort_with_status(RichStatus(error, "r"))
        number = list(fake.published).index(request.lineage.job) + 1
        version = models_pb2.ModelVersion(
            name=f"{request.parent}/versions/{number}",
            manifest=request.manifest,
            kind=request.kind,
            architecture=tiny_architecture(),
            lineage=request.lineage,
        )
        fake.models[version.name] = version
        if fake.lost_replies:
            fake.lost_replies -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the reply was lost")
        return version

    async def CreateValidationReport(self, request: validations_pb2.CreateValidationReportRequest, context: Any) -> Any:
        await self._note("CreateValidationReport", context)
        known = self.fake.reports.setdefault(request.request_id, request)
        if self.fake.lost_replies:
            self.fake.lost_replies -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the reply was lost")
        return known.report

    async def HoldBlobs(self, request: blobs_pb2.HoldBlobsRequest, context: Any) -> Any:
        await self._note("HoldBlobs", context)
        if request.manifest.digest in self.fake.lost_manifests:
            await context.abort_with_status(RichStatus(ServiceError("BLOB_MISSING", "collected"), "r"))
        self.fake.held_blobs[request.name] = request.manifest
        return blobs_pb2.BlobHold(name=request.name)

    async def ReleaseBlobs(self, request: blobs_pb2.ReleaseBlobsRequest, context: Any) -> Any:
        await self._note("ReleaseBlobs", context)
        self.fake.held_blobs.pop(request.name, None)
        return blobs_pb2.BlobHold(name=request.name)


@asynccontextmanager
async def serve_registry(fake: FakeRegistry) -> AsyncIterator[FakeRegistry]:
    """Serves a fake on loopback while the block runs."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    # What it does not answer is UNIMPLEMENTED: the generated methods are abstract for the type checker only.
    registry_pb2_grpc.add_RegistryServiceServicer_to_server(_Servicer(fake), server)  # type: ignore[abstract]
    fake.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield fake
    finally:
        await server.stop(None)
