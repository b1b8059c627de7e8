"""The scheduler, as the trainer calls it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from services.grpckit.errors import Reason, ServiceError
from services.grpckit.peers import call, messages, open_channel
from services.grpckit.settings import PeerSettings
from services.trainer.node import NodeView
from services.trainer.wire import node_to_proto, status_to_proto
from tuneforge.v1 import scheduler_pb2, scheduler_pb2_grpc

PEER = "the scheduler"
_SILENT_BEATS = 10
"""Heartbeats without an answer after which a scheduler counts as hung: its lease has ended by then, and another one may
lead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What the scheduler answered to a node that made itself known."""

    manager_token: str
    """Secret that comes with each start; never logged."""
    heartbeat_interval_s: float
    """Seconds between two heartbeats, > 0."""


class SchedulerPeer:
    """Channels to the scheduler that leads and to those that stand by; made inside the event loop.

    Args:
        addresses: Where they listen, at least one; the first is called first.
        settings: How to call them.
    """

    def __init__(self, addresses: Sequence[str], settings: PeerSettings) -> None:
        self._channels = deque(open_channel(address, settings) for address in addresses)

    @property
    def _stub(self) -> scheduler_pb2_grpc.SchedulerServiceAsyncStub:
        return scheduler_pb2_grpc.SchedulerServiceStub(self._channels[0])

    def move_on(self) -> None:
        """Calls the next one from now on: this one is not there, or stands by."""
        self._channels.rotate(-1)

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

        renewals = messages(self._stub.Heartbeat(beats()), peer=PEER)
        while True:
            try:
                async with asyncio.timeout(_SILENT_BEATS * interval_s):
                    await anext(renewals)
            except StopAsyncIteration:
                return
            except TimeoutError:
                problem = f"{PEER} has answered none of {_SILENT_BEATS} heartbeats"
                raise ServiceError(Reason.PEER_UNAVAILABLE, problem) from None
            yield None

    async def close(self) -> None:
        """Closes the channels."""
        for channel in self._channels:
            await channel.close()
