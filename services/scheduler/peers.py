"""The registry and the trainers as the scheduler sees them: stubs with deadlines, messages in and dataclasses out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import grpc

from services.grpckit.errors import ServiceError
from services.grpckit.peers import call, messages, open_channel
from services.grpckit.settings import PeerSettings
from services.scheduler.records import Attempt, Checkpoint, Job, Ref
from services.scheduler.shared_asking import SharedAsking
from services.scheduler.store.checkpoints import BlobHold
from services.scheduler.wire.inputs import DatasetFacts, ModelFacts, dataset_facts, model_facts
from services.scheduler.wire.publications import start_request
from services.scheduler.wire.reports import Report, Status, report_from_proto, status_from_proto
from tuneforge import durations
from tuneforge.v1 import (
    blobs_pb2,
    datasets_pb2,
    models_pb2,
    registry_pb2_grpc,
    trainer_pb2,
    trainer_pb2_grpc,
    types_pb2,
    validations_pb2,
)

REGISTRY = "the registry"


class Registry:
    """The registry.

    Args:
        address: `host:port`.
        settings: Token, TLS, deadlines.
    """

    def __init__(self, address: str, settings: PeerSettings) -> None:
        self._channel = open_channel(address, settings)
        self._stub = registry_pb2_grpc.RegistryServiceStub(self._channel)
        self._models = SharedAsking[ModelFacts]()
        self._datasets = SharedAsking[DatasetFacts]()

    @property
    def channel(self) -> grpc.aio.Channel:
        """The connection."""
        return self._channel

    async def model(self, name: str) -> ModelFacts:
        """Returns a version by version or alias.

        Raises:
            ServiceError: NOT_FOUND, or PEER_UNAVAILABLE.
        """
        return await self._models.of(name, lambda: self._model(name))

    async def _model(self, name: str) -> ModelFacts:
        request = models_pb2.GetModelVersionRequest(name=name)
        return model_facts(await call(self._stub.GetModelVersion(request), peer=REGISTRY))

    async def dataset(self, name: str) -> DatasetFacts:
        """Returns a version of a data set, also by `versions/latest`.

        Raises:
            ServiceError: NOT_FOUND, or PEER_UNAVAILABLE.
        """
        return await self._datasets.of(name, lambda: self._dataset(name))

    async def _dataset(self, name: str) -> DatasetFacts:
        request = datasets_pb2.GetDatasetVersionRequest(name=name)
        return dataset_facts(await call(self._stub.GetDatasetVersion(request), peer=REGISTRY))

    async def publish(self, payload: bytes) -> Ref:
        """Registers the result of a job and returns its version; a repetition returns the same one.

        Raises:
            ServiceError: what the registry answers, or PEER_UNAVAILABLE.
        """
        request = models_pb2.PublishVersionRequest.FromString(payload)
        version = await call(self._stub.PublishVersion(request), peer=REGISTRY)
        return Ref(version=version.name, digest=version.manifest.digest)

    async def report(self, version: str, report: validations_pb2.ValidationReport, request_id: str) -> None:
        """Stores a report on a version; a repetition with the same request id stores it once.

        Raises:
            ServiceError: NOT_FOUND, what else the registry answers, or PEER_UNAVAILABLE.
        """
        request = validations_pb2.CreateValidationReportRequest(parent=version, report=report, request_id=request_id)
        await call(self._stub.CreateValidationReport(request), peer=REGISTRY)

    async def hold(self, hold: BlobHold) -> None:
        """Has the blobs of a checkpoint kept, or lets go of them.

        Raises:
            ServiceError: BLOB_MISSING, what else the registry answers, or PEER_UNAVAILABLE.
        """
        if hold.manifest is None:
            await call(self._stub.ReleaseBlobs(blobs_pb2.ReleaseBlobsRequest(name=hold.name)), peer=REGISTRY)
            return
        manifest = types_pb2.Manifest.FromString(hold.manifest)
        await call(self._stub.HoldBlobs(blobs_pb2.HoldBlobsRequest(name=hold.name, manifest=manifest)), peer=REGISTRY)

    async def close(self) -> None:
        """Closes the connection."""
        await self._models.close()
        await self._datasets.close()
        await self._channel.close()


class Trainers:
    """The nodes' trainers, by address; one channel each, opened at its first call."""

    def __init__(self, settings: PeerSettings) -> None:
        self._settings = settings
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._stubs: dict[str, trainer_pb2_grpc.TrainerServiceAsyncStub] = {}

    def _stub(self, address: str) -> trainer_pb2_grpc.TrainerServiceAsyncStub:
        stub = self._stubs.get(address)
        if stub is None:
            channel = self._channels[address] = open_channel(address, self._settings)
            stub = self._stubs[address] = trainer_pb2_grpc.TrainerServiceStub(channel)
        return stub

    async def held(self, address: str) -> dict[str, Status]:
        """Returns what a node holds, by attempt name.

        Raises:
            ServiceError: PEER_UNAVAILABLE.
        """
        node = await call(self._stub(address).GetNode(trainer_pb2.GetNodeRequest()), peer=address)
        return {attempt.name: status_from_proto(attempt) for attempt in node.attempts}

    async def start(
        self, address: str, job: Job, attempt: Attempt, known: Sequence[Checkpoint], manager_token: str
    ) -> Status:
        """Starts an attempt, or returns it when it was started before.

        Raises:
            ServiceError: what the trainer answers, or PEER_UNAVAILABLE: then the outcome is not known.
        """
        request = start_request(job, attempt, known, manager_token)
        return status_from_proto(await call(self._stub(address).StartAttempt(request), peer=address))

    async def stop(self, address: str, attempt: Attempt, grace_s: float, *, is_saving: bool = False) -> None:
        """Asks an attempt to stop, without saving or after it has saved its state.

        Raises:
            ServiceError: what the trainer answers, or PEER_UNAVAILABLE.
        """
        request = trainer_pb2.StopAttemptRequest(
            name=str(attempt.name),
            node_rank=attempt.node_rank,
            token=attempt.wire_token,
            mode=trainer_pb2.STOP_MODE_CHECKPOINT if is_saving else trainer_pb2.STOP_MODE_CANCEL,
            grace=durations.from_seconds(grace_s),
        )
        await call(self._stub(address).StopAttempt(request), peer=address)

    async def ack(self, address: str, attempt: Attempt, seq: int, *, is_final: bool) -> None:
        """Tells that events up to a number, and with `is_final` the end, are kept.

        Raises:
            ServiceError: what the trainer answers, or PEER_UNAVAILABLE.
        """
        request = trainer_pb2.AckEventsRequest(
            name=str(attempt.name),
            node_rank=attempt.node_rank,
            token=attempt.wire_token,
            seq=seq,
            is_final=is_final,
        )
        await call(self._stub(address).AckEvents(request), peer=address)

    async def watch(self, address: str, attempt: Attempt, after_seq: int) -> AsyncGenerator[Report, None]:
        """Yields what happens in an attempt after a number, until its end.

        Raises:
            ServiceError: what the trainer answers, or PEER_UNAVAILABLE when the connection broke.
        """
        if not address:
            raise ServiceError("PEER_UNAVAILABLE", f"the address of nodes/{attempt.node} is not known")
        request = trainer_pb2.WatchAttemptRequest(
            name=str(attempt.name), node_rank=attempt.node_rank, after_seq=after_seq
        )
        stream = self._stub(address).WatchAttempt(request)
        async with aclosing(messages(stream, peer=address)) as answers:
            async for answer in answers:
                yield report_from_proto(answer)

    async def close(self) -> None:
        """Closes all connections."""
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()
        self._stubs.clear()
