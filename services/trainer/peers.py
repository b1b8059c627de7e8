"""The scheduler, as the trainer calls it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from services.grpckit.peers import call, messages, open_channel
from services.grpckit.settings import PeerSettings
from services.trainer.node import NodeView
from services.trainer.wire import node_to_proto, status_to_proto
from tuneforge.v1 import scheduler_pb2, scheduler_pb2_grpc

PEER = "the scheduler"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What the scheduler answered to a node that made itself known."""

    manager_token: str
    """Secret that comes with each start; never logged."""
    heartbeat_interval_s: float
    """Seconds between two heartbeats, > 0."""


class SchedulerPeer:
    """A channel to the scheduler; made inside the event loop."""

    def __init__(self, address: str, settings: PeerSettings) -> None:
        self._channel = open_channel(address, settings)
        self._stub = scheduler_pb2_grpc.SchedulerServiceStub(self._channel)

    async def register(self, node: NodeView) -> Registration:
        """Makes the node known.

        Raises:
            ServiceError: What the scheduler said, or PEER_UNAVAILABLE.
        """
        request = scheduler_pb2.RegisterNodeRequest(node=node_to_proto(node))
        answer = await call(self._stub.RegisterNode(request), peer=PEER)
        interval_s = answer.heartbeat_interval.ToTimedelta().total_seconds()
        return Registration(
            manager_token=answer.manager_token, heartbeat_interval_s=interval_s if interval_s > 0 else 1.0
        )

    async def heartbeat(
        self, node: Callable[[], NodeView], interval_s: float, ticks: asyncio.Event
    ) -> AsyncIterator[None]:
        """Holds the node's lease: sends what the node runs every `interval_s`, and at once when `ticks` is set.

        Gives a value for each renewal.

        Raises:
            ServiceError: NOT_FOUND: register again; STALE_ATTEMPT: a newer start of the node has registered;
                PEER_UNAVAILABLE.
        """

        async def beats() -> AsyncIterator[scheduler_pb2.HeartbeatRequest]:
            while True:
                now = node()
                yield scheduler_pb2.HeartbeatRequest(
                    name=now.name,
                    generation=now.generation,
                    attempts=[status_to_proto(view) for view in now.attempts],
                    is_draining=now.is_draining,
                )
                ticks.clear()
                try:
                    await asyncio.wait_for(ticks.wait(), interval_s)
                except TimeoutError:
                    continue

        async for _ in messages(self._stub.Heartbeat(beats()), peer=PEER):
            yield None

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()
