"""What a queue under load is made of: clients that submit, and nodes that take attempts and end them at once."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tuneforge.v1 import (
    errors_pb2,
    events_pb2,
    nodes_pb2,
    scheduler_pb2,
    scheduler_pb2_grpc,
    spec_pb2,
    trainer_pb2,
    trainer_pb2_grpc,
    types_pb2,
)

PARENT = "projects/default"
SUBMITS_PER_CHANNEL = 16
"""Clients that share a connection: as many as one busy backend process would have."""
_ENDED = nodes_pb2.ATTEMPT_STATE_FAILED


def spec_of(base: str, dataset: str) -> spec_pb2.TrainingSpec:
    """Returns a small LoRA run."""
    return spec_pb2.TrainingSpec(
        base=spec_pb2.BaseModel(model=base),
        supervised=spec_pb2.SupervisedTask(),
        lora=spec_pb2.LoraMethod(rank=4),
        data=spec_pb2.DataConfig(train=spec_pb2.DataSource(dataset=dataset), max_tokens=128),
    )


@dataclass(slots=True)
class Submits:
    """What a number of clients saw that submitted one job after the other."""

    seconds: list[float] = field(default_factory=list)
    """How long each submit took."""
    wall_s: float = 0.0
    """From the first submit to the last answer."""

    @property
    def per_second(self) -> float:
        """Jobs that were acknowledged, over the time."""
        return len(self.seconds) / self.wall_s

    def quantile_ms(self, share: float) -> float:
        """Returns a quantile of the time of a submit."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3


Ask = Callable[[grpc.aio.Channel], Awaitable[object]]
"""One call of a client."""


def creation(spec: spec_pb2.TrainingSpec, *, validate_only: bool = False) -> Ask:
    """Returns the submit of a job, each with a request id of its own."""

    async def ask(channel: grpc.aio.Channel) -> object:
        request = scheduler_pb2.CreateJobRequest(
            parent=PARENT, spec=spec, request_id=str(uuid.uuid4()), validate_only=validate_only
        )
        return await scheduler_pb2_grpc.SchedulerServiceStub(channel).CreateJob(request)

    return ask


async def probe(channel: grpc.aio.Channel) -> object:
    """Makes a call whose handler does nothing: what is left is gRPC and what is around every handler."""
    stub: Any = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
    return await stub.Check(health_pb2.HealthCheckRequest())


async def submit(address: str, spec: spec_pb2.TrainingSpec, jobs: int, clients: int) -> Submits:
    """Submits jobs through so many clients at once."""
    return await call(address, creation(spec), jobs, clients)


async def call(address: str, ask: Ask, calls: int, clients: int) -> Submits:
    """Makes calls through so many clients at once."""
    channels = [grpc.aio.insecure_channel(address) for _ in range(-(-clients // SUBMITS_PER_CHANNEL))]
    found, left = Submits(), iter(range(calls))

    async def client(number: int) -> None:
        for _ in left:
            began = time.perf_counter()
            await ask(channels[number % len(channels)])
            found.seconds.append(time.perf_counter() - began)

    await asyncio.gather(*(channel.channel_ready() for channel in channels))
    began = time.perf_counter()
    await asyncio.gather(*map(client, range(clients)))
    found.wall_s = time.perf_counter() - began
    await asyncio.gather(*(channel.close() for channel in channels))
    return found


@dataclass(slots=True)
class QuickNode:
    """A node whose attempts end as soon as they are watched, with a fault of the user's, so that no retry follows."""

    name: str
    slots: int
    address: str = ""
    held: dict[str, nodes_pb2.AttemptStatus] = field(default_factory=dict)
    ended: int = 0
    """Attempts whose end was acknowledged."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def until_ended(self, count: int) -> None:
        """Waits until so many of its attempts have ended."""
        while self.ended < count:
            self.changed.clear()
            await self.changed.wait()

    def message(self) -> nodes_pb2.Node:
        """Returns what the node says of itself."""
        capacity = nodes_pb2.NodeCapacity(cpu_millis=64_000, memory_bytes=10**12, slots=self.slots)
        return nodes_pb2.Node(
            name=self.name,
            address=self.address,
            capacity=capacity,
            generation="0000000000000001",
            attempts=self.held.values(),
        )


class Trainer(trainer_pb2_grpc.TrainerServiceServicer):
    """The RPCs of such a node.

    Args:
        node: The node.
    """

    def __init__(self, node: QuickNode) -> None:
        self.node = node

    async def GetNode(self, _: trainer_pb2.GetNodeRequest, __: Any) -> nodes_pb2.Node:
        """Returns the node."""
        return self.node.message()

    async def StartAttempt(self, request: trainer_pb2.StartAttemptRequest, _: Any) -> nodes_pb2.AttemptStatus:
        """Starts an attempt, once."""
        status = nodes_pb2.AttemptStatus(name=request.name, state=nodes_pb2.ATTEMPT_STATE_STARTING)
        return self.node.held.setdefault(request.name, status)

    async def WatchAttempt(
        self, request: trainer_pb2.WatchAttemptRequest, _: Any
    ) -> AsyncIterator[trainer_pb2.WatchAttemptResponse]:
        """Tells what happens in an attempt."""
        status = self.node.held[request.name]
        status.state = _ENDED
        status.failure.reason, status.failure.fault = errors_pb2.ERROR_REASON_INVALID_DATA, types_pb2.FAULT_CLASS_USER
        status.failure.message = "It was enough."
        status.last_seq = 1
        job, _, number = request.name.rpartition("/attempts/")
        outcome = events_pb2.AttemptOutcome(result=events_pb2.ATTEMPT_RESULT_FAILED, failure=status.failure)
        event = events_pb2.Event(job=job, attempt=int(number), seq=1, outcome=outcome)
        yield trainer_pb2.WatchAttemptResponse(events=[event], status=status)

    async def AckEvents(self, request: trainer_pb2.AckEventsRequest, _: Any) -> nodes_pb2.AttemptStatus:
        """Notes what is kept."""
        if request.is_final:
            self.node.held.pop(request.name, None)
            self.node.ended += 1
            self.node.changed.set()
        return nodes_pb2.AttemptStatus(name=request.name, state=_ENDED)

    async def StopAttempt(self, request: trainer_pb2.StopAttemptRequest, _: Any) -> nodes_pb2.AttemptStatus:
        """Says how an attempt stands."""
        return self.node.held[request.name]


@asynccontextmanager
async def quick_nodes(scheduler: str, count: int, slots: int) -> AsyncIterator[list[QuickNode]]:
    """Serves and registers nodes while the block runs, heartbeats included."""
    nodes = [QuickNode(name=f"nodes/quick-{number}", slots=slots) for number in range(count)]
    async with served([(node, Trainer(node)) for node in nodes], scheduler):
        yield nodes


@asynccontextmanager
async def served(nodes: Sequence[tuple[QuickNode, Trainer]], scheduler: str) -> AsyncIterator[None]:
    """The same for nodes that are there already."""
    servers = []
    for node, trainer in nodes:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        trainer_pb2_grpc.add_TrainerServiceServicer_to_server(trainer, server)
        node.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        servers.append(server)
    async with grpc.aio.insecure_channel(scheduler) as channel:
        stub = scheduler_pb2_grpc.SchedulerServiceStub(channel)
        beats = [asyncio.create_task(_beat(stub, node)) for node, _ in nodes]
        try:
            yield
        finally:
            for beat in beats:
                beat.cancel()
            await asyncio.gather(*beats, return_exceptions=True)
            await asyncio.gather(*(server.stop(None) for server in servers))


async def _beat(stub: Any, node: QuickNode) -> None:
    await stub.RegisterNode(scheduler_pb2.RegisterNodeRequest(node=node.message()))
    stream = stub.Heartbeat()
    while True:
        said = node.message()
        await stream.write(
            scheduler_pb2.HeartbeatRequest(name=said.name, generation=said.generation, attempts=said.attempts)
        )
        await stream.read()
        await asyncio.sleep(1.0)
