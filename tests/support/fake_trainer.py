"""A trainer with a small brain on a real socket: it holds attempts and their events, and does what a test tells it.

It keeps no processes and trains nothing; its answers are those of the contract. Faults are switches.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from services.grpckit.errors import ServiceError, not_found
from services.grpckit.status import RichStatus
from tuneforge.v1 import events_pb2, nodes_pb2, scheduler_pb2, scheduler_pb2_grpc, trainer_pb2, trainer_pb2_grpc

LIVE = {nodes_pb2.ATTEMPT_STATE_STARTING, nodes_pb2.ATTEMPT_STATE_RUNNING, nodes_pb2.ATTEMPT_STATE_STOPPING}
RESULTS = {
    nodes_pb2.ATTEMPT_STATE_SUCCEEDED: events_pb2.ATTEMPT_RESULT_SUCCEEDED,
    nodes_pb2.ATTEMPT_STATE_FAILED: events_pb2.ATTEMPT_RESULT_FAILED,
    nodes_pb2.ATTEMPT_STATE_INTERRUPTED: events_pb2.ATTEMPT_RESULT_INTERRUPTED,
    nodes_pb2.ATTEMPT_STATE_CANCELLED: events_pb2.ATTEMPT_RESULT_CANCELLED,
}


@dataclass
class HeldAttempt:
    """An attempt as the fake holds it."""

    request: trainer_pb2.StartAttemptRequest
    status: nodes_pb2.AttemptStatus
    events: list[events_pb2.Event] = field(default_factory=list)
    stops: int = 0
    stop_modes: list[int] = field(default_factory=list)
    """How it was asked to stop, each time."""
    acks: list[int] = field(default_factory=list)
    is_gone: bool = False
    """Its end was acknowledged."""


@dataclass
class FakeTrainer:
    """A node that a test plays."""

    name: str = "nodes/n1"
    generation: str = "0000000000000001"
    slots: int = 1
    memory_bytes: int = 64 * 10**9
    devices: Sequence[nodes_pb2.Device] = ()
    labels: dict[str, str] = field(default_factory=dict)
    address: str = ""
    held: dict[str, HeldAttempt] = field(default_factory=dict)
    starts: list[str] = field(default_factory=list)
    lost_replies: int = 0
    """So many starts are carried out and answered UNAVAILABLE."""
    gate: asyncio.Event | None = None
    """Starts are carried out once it is set, also when their caller has gone."""
    waiting: int = 0
    """Starts that have come to the gate."""
    refusal: ServiceError | None = None
    """Starts are answered with it."""
    repeat_events: int = 0
    """Watches send so many events again that the caller has already."""
    cuts: list[int] = field(default_factory=list)
    """Numbers of events after which a watch breaks off, once each."""
    manager_token: str = ""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, test: Callable[[], Any]) -> None:
        """Waits until something that was called on the fake makes a test true."""
        async with self.changed:
            await self.changed.wait_for(lambda: bool(test()))

    async def started(self, count: int = 1) -> HeldAttempt:
        """Waits for so many starts; returns the newest attempt."""
        await self.until(lambda: len(self.starts) >= count)
        return self.held[self.starts[count - 1]]

    async def tell(self) -> None:
        """Wakes watches and waiting tests."""
        async with self.changed:
            self.changed.notify_all()

    async def emit(self, attempt: HeldAttempt, count: int = 1) -> None:
        """Finishes so many optimiser steps."""
        for _ in range(count):
            step = attempt.status.step + 1
            metrics = events_pb2.StepMetrics(step=step, total_steps=100, loss=1.0 / step)
            self._add(attempt, events_pb2.Event(step=metrics))
            attempt.status.step = step
        attempt.status.state = nodes_pb2.ATTEMPT_STATE_RUNNING
        await self.tell()

    async def add(self, attempt: HeldAttempt, event: events_pb2.Event) -> None:
        """Adds any event."""
        self._add(attempt, event)
        await self.tell()

    def _add(self, attempt: HeldAttempt, event: events_pb2.Event) -> None:
        name, _, number = attempt.request.name.rpartition("/attempts/")
        event.job, event.attempt, event.seq = name, int(number), len(attempt.events) + 1
        event.node_rank = attempt.request.node_rank
        attempt.events.append(event)
        attempt.status.last_seq = event.seq

    async def end(
        self,
        attempt: HeldAttempt,
        state: nodes_pb2.AttemptState.ValueType,
        failure: Any = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Ends an attempt, with its outcome event unless it is LOST."""
        if state in RESULTS:
            outcome = events_pb2.AttemptOutcome(
                result=RESULTS[state], failure=failure, metrics={"loss": 0.5, **(metrics or {})}
            )
            outcome.step = attempt.status.step
            if state == nodes_pb2.ATTEMPT_STATE_SUCCEEDED:
                outcome.manifest.files.add(path="adapter.safetensors", sha256="a" * 64, size_bytes=1)
                outcome.manifest.digest = "d" * 64
                outcome.artifact_kind = events_pb2.ARTIFACT_KIND_ADAPTER
            self._add(attempt, events_pb2.Event(outcome=outcome))
        attempt.status.state = state
        if failure is not None:
            attempt.status.failure.CopyFrom(failure)
        await self.tell()

    def node(self) -> nodes_pb2.Node:
        """Returns what the node says of itself."""
        capacity = nodes_pb2.NodeCapacity(
            cpu_millis=2000, memory_bytes=self.memory_bytes, slots=self.slots, devices=self.devices
        )
        return nodes_pb2.Node(
            name=self.name,
            address=self.address,
            capacity=capacity,
            labels=self.labels,
            generation=self.generation,
            attempts=self.statuses(),
        )

    def statuses(self) -> list[nodes_pb2.AttemptStatus]:
        """Returns the attempts that it holds."""
        return [attempt.status for attempt in self.held.values() if not attempt.is_gone]

    async def register(self, scheduler: str) -> None:
        """Registers at a scheduler."""
        async with grpc.aio.insecure_channel(scheduler) as channel:
            stub = scheduler_pb2_grpc.SchedulerServiceStub(channel)
            answer = await stub.RegisterNode(scheduler_pb2.RegisterNodeRequest(node=self.node()), wait_for_ready=True)
        self.manager_token = answer.manager_token

    async def beat(self, scheduler: str, *, is_draining: bool = False) -> scheduler_pb2.HeartbeatResponse:
        """Sends one heartbeat on a stream of its own."""
        request = scheduler_pb2.HeartbeatRequest(
            name=self.name, generation=self.generation, attempts=self.statuses(), is_draining=is_draining
        )
        async with grpc.aio.insecure_channel(scheduler) as channel:
            stream = scheduler_pb2_grpc.SchedulerServiceStub(channel).Heartbeat()
            await stream.write(request)
            answer = await stream.read()
            assert isinstance(answer, scheduler_pb2.HeartbeatResponse), "the stream ended without an answer"
            await stream.done_writing()
            return answer


class _Servicer(trainer_pb2_grpc.TrainerServiceServicer):
    def __init__(self, fake: FakeTrainer) -> None:
        self.fake = fake

    async def GetNode(self, _: trainer_pb2.GetNodeRequest, __: Any) -> nodes_pb2.Node:
        return self.fake.node()

    async def StartAttempt(self, request: trainer_pb2.StartAttemptRequest, context: Any) -> nodes_pb2.AttemptStatus:
        fake = self.fake
        if fake.refusal is not None:
            await context.abort_with_status(RichStatus(fake.refusal, "r"))
        if fake.gate is not None:
            fake.waiting += 1
            await fake.tell()
            await fake.gate.wait()
        if request.name not in fake.held:
            status = nodes_pb2.AttemptStatus(
                name=request.name, node_rank=request.node_rank, state=nodes_pb2.ATTEMPT_STATE_STARTING
            )
            fake.held[request.name] = HeldAttempt(request=request, status=status)
        fake.starts.append(request.name)
        await fake.tell()
        if fake.lost_replies:
            fake.lost_replies -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the reply was lost")
        return fake.held[request.name].status

    async def WatchAttempt(
        self, request: trainer_pb2.WatchAttemptRequest, context: Any
    ) -> AsyncIterator[trainer_pb2.WatchAttemptResponse]:
        attempt, sent = await self._held(request.name, context), request.after_seq
        sent = max(0, sent - self.fake.repeat_events)
        while True:
            events = attempt.events[sent:]
            if (cut := next((each for each in self.fake.cuts if each > sent), None)) is not None and events:
                events = events[: cut - sent]
            sent += len(events)
            state = attempt.status.state  # as it is sent: it may change while the message is on its way
            is_live = state in LIVE
            yield trainer_pb2.WatchAttemptResponse(events=events, status=attempt.status)
            if sent in self.fake.cuts:
                self.fake.cuts.remove(sent)
                await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
            if not is_live and sent == len(attempt.events):
                return
            await self.fake.until(lambda: len(attempt.events) > sent or attempt.status.state != state)  # noqa: B023

    async def AckEvents(self, request: trainer_pb2.AckEventsRequest, context: Any) -> nodes_pb2.AttemptStatus:
        attempt = await self._held(request.name, context)
        attempt.acks.append(request.seq)
        attempt.status.acked_seq = request.seq
        attempt.is_gone = attempt.is_gone or request.is_final
        await self.fake.tell()
        return attempt.status

    async def StopAttempt(self, request: trainer_pb2.StopAttemptRequest, context: Any) -> nodes_pb2.AttemptStatus:
        attempt = await self._held(request.name, context)
        attempt.stops += 1
        attempt.stop_modes.append(request.mode)
        if attempt.status.state in LIVE:
            attempt.status.state = nodes_pb2.ATTEMPT_STATE_STOPPING
        await self.fake.tell()
        return attempt.status

    async def _held(self, name: str, context: Any) -> HeldAttempt:
        attempt = self.fake.held.get(name)
        if attempt is None or attempt.is_gone:
            await context.abort_with_status(RichStatus(not_found("attempt", name), "r"))
        assert attempt is not None
        return attempt


@asynccontextmanager
async def serve_trainer(fake: FakeTrainer, port: int = 0) -> AsyncIterator[FakeTrainer]:
    """Serves a fake on loopback while the block runs."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    trainer_pb2_grpc.add_TrainerServiceServicer_to_server(_Servicer(fake), server)
    fake.address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    await server.start()
    try:
        yield fake
    finally:
        await server.stop(None)
