"""The network between the scheduler and its peers: slow, one-way, repeating, forgetful."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from services.grpckit.errors import Reason, ServiceError
from services.scheduler.peers import Registry, Trainers
from services.scheduler.records import Attempt, Checkpoint, Job, Ref
from services.scheduler.store.checkpoints import BlobHold
from services.scheduler.wire.events import Batch
from services.scheduler.wire.reports import Report, Status
from tests.support.chaos.world.node import SimNode
from tuneforge.v1 import models_pb2

T = TypeVar("T")


@dataclass(eq=False)
class Link:
    """The way to one node and back."""

    hears: bool = True
    """Whether what is sent to the node comes there."""
    is_heard: bool = True
    """Whether what the node sends comes here."""
    loss: float = 0.0
    """Share of messages that vanish, and of those that come twice."""


def away(who: str) -> ServiceError:
    """Returns what a caller sees of a peer that does not answer."""
    return ServiceError(Reason.PEER_UNAVAILABLE, f"{who} does not answer")


class Network:
    """Carries messages.

    Args:
        nodes: All nodes by address.
        chance: Source of delays and losses.
    """

    def __init__(self, nodes: Mapping[str, SimNode], chance: random.Random) -> None:
        self.nodes = nodes
        self.links = {address: Link() for address in nodes}
        self._chance = chance

    async def transit(self, address: str, *, to_node: bool) -> None:
        """Carries one message; raises when it does not arrive."""
        link, node = self.links[address], self.nodes[address]
        late = self._chance.random()
        await asyncio.sleep(0.001 + (late * 0.4 if late > 0.9 else 0.0))
        is_open = (link.hears if to_node else link.is_heard) and node.is_up and node.running.is_set()
        if not is_open or self._chance.random() < link.loss:
            await asyncio.sleep(0.5)  # nobody says no: the caller's patience ends
            raise away(address)

    async def call(self, address: str, run: Callable[[SimNode], T]) -> T:
        """Calls a node, perhaps twice; the answer may be lost after it was carried out."""
        await self.transit(address, to_node=True)
        node = self.nodes[address]
        result = run(node)
        if self._chance.random() < self.links[address].loss:
            with suppress(ServiceError):
                run(node)
        await self.transit(address, to_node=False)
        return result


class SimTrainers(Trainers):
    """The nodes as the scheduler calls them."""

    def __init__(self, network: Network, chance: random.Random) -> None:
        self._network = network
        self._chance = chance

    async def held(self, address: str) -> dict[str, Status]:
        """Returns what a node holds."""
        return await self._network.call(address, lambda node: {each.name: each for each in node.statuses()})

    async def start(
        self, address: str, job: Job, attempt: Attempt, durable: Sequence[Checkpoint], manager_token: str
    ) -> Status:
        """Starts an attempt."""
        return await self._network.call(address, lambda node: node.start(job, attempt, durable, manager_token))

    async def stop(self, address: str, attempt: Attempt, grace_s: float, *, is_saving: bool = False) -> None:
        """Asks an attempt to stop; its workers need no grace."""
        del grace_s
        await self._network.call(address, lambda node: node.stop(attempt, is_saving=is_saving))

    async def ack(self, address: str, attempt: Attempt, seq: int, *, is_final: bool) -> None:
        """Tells that events are kept."""
        await self._network.call(address, lambda node: node.ack(attempt, seq, is_final=is_final))

    async def watch(self, address: str, attempt: Attempt, after_seq: int) -> AsyncGenerator[Report, None]:
        """Yields what happens in an attempt; now and then again what came already, or with a hole."""
        link = self._network.links[address]
        held = await self._network.call(address, lambda node: node.find(attempt))
        if held is None:
            raise ServiceError("NOT_FOUND", "the attempt was forgotten")
        if after_seq > len(held.events):
            raise ServiceError(Reason.CURSOR_OUT_OF_RANGE, f"event {after_seq} is not there yet")
        sent = max(0, after_seq - 2) if self._chance.random() < link.loss else after_seq
        while True:
            if self._chance.random() < link.loss:
                sent += 1  # a message was lost
            events, status, changed = tuple(held.events[sent:]), held.status(), held.changed
            await self._network.transit(address, to_node=False)
            yield Report(batch=Batch(events), status=status)
            sent = max(sent, sent + len(events))
            if not status.is_live and sent >= len(held.events):
                return
            if changed is held.changed:
                with suppress(TimeoutError):
                    async with asyncio.timeout(5.0):
                        await changed.wait()

    async def close(self) -> None:
        """Needs nothing."""


class _NoChannel:
    """Stands where a connection would be; nobody calls over it."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_args, **_options: None


class SimRegistry(Registry):
    """The registry: one version a job for ever, whoever asks how often."""

    def __init__(self, chance: random.Random) -> None:
        self._channel: Any = _NoChannel()
        self._chance = chance
        self.is_away = False
        self.versions: dict[str, str] = {}
        """Digest of what each job has published."""
        self.takes = 0

    async def publish(self, payload: bytes) -> Ref:
        """Makes a version, or returns the one that was made; the answer may be lost."""
        request = models_pb2.PublishVersionRequest.FromString(payload)
        await self._answer()
        digest = self.versions.setdefault(request.lineage.job, request.manifest.digest)
        self.takes += 1
        if digest != request.manifest.digest:
            raise ServiceError(Reason.ALREADY_PUBLISHED, "the job has published something else")
        await self._answer()
        return Ref(version=f"{request.parent}/versions/1", digest=digest)

    async def hold(self, hold: BlobHold) -> None:
        """Keeps blobs or lets them go; the simulated store has room for all."""
        del hold
        await self._answer()

    async def _answer(self) -> None:
        await asyncio.sleep(0.01)
        if self.is_away or self._chance.random() < 0.05:
            raise away("the registry")

    async def close(self) -> None:
        """Needs nothing."""
