"""The part of a scheduler that a node sees: RegisterNode and Heartbeat on a real socket, and what the node told.

For tests of the trainer that need a scheduler to refuse, to go away and to come back at exact places.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
from grpc_status import rpc_status

from services.grpckit.errors import ServiceError
from services.grpckit.status import to_proto
from tuneforge.v1 import nodes_pb2, scheduler_pb2
from tuneforge.v1.scheduler_pb2_grpc import SchedulerServiceServicer, add_SchedulerServiceServicer_to_server

TOKEN = "manager-secret"


@dataclass
class NodeRegister:
    """What it was told, and how it refuses."""

    registered: list[nodes_pb2.Node] = field(default_factory=list)
    beats: list[scheduler_pb2.HeartbeatRequest] = field(default_factory=list)
    refusal: ServiceError | None = None
    """Ends each stream of heartbeats with this error at its next message."""
    is_silent: bool = False
    """Heartbeats are taken and not answered, as by one that hangs."""

    def RegisterNode(self, request: scheduler_pb2.RegisterNodeRequest, _: Any) -> scheduler_pb2.RegisterNodeResponse:
        """Takes a node and asks for twenty heartbeats a second."""
        self.registered.append(request.node)
        answer = scheduler_pb2.RegisterNodeResponse(node=request.node, manager_token=TOKEN)
        answer.heartbeat_interval.FromMilliseconds(50)
        return answer

    def Heartbeat(
        self, request_iterator: Iterator[scheduler_pb2.HeartbeatRequest], context: Any
    ) -> Iterator[scheduler_pb2.HeartbeatResponse]:
        """Answers each message."""
        for beat in request_iterator:
            self.beats.append(beat)
            if self.refusal is not None:
                context.abort_with_status(rpc_status.to_status(to_proto(self.refusal, "r-1")))  # type: ignore[no-untyped-call]
            if not self.is_silent:
                yield scheduler_pb2.HeartbeatResponse()

    def __getattr__(self, name: str) -> Any:
        """Stands for the methods that no node calls."""
        if name[:1].isupper():
            return None
        raise AttributeError(name)

    def last_beat(self, *, after: int = 0, holding: str = "") -> scheduler_pb2.HeartbeatRequest | None:
        """Returns the newest heartbeat that came after the first `after` ones, if it tells of the attempt `holding`."""
        newest = self.beats[-1] if len(self.beats) > after else None
        if newest is not None and holding and all(attempt.name != holding for attempt in newest.attempts):
            return None
        return newest


@contextmanager
def serving(register: NodeRegister, address: str = "127.0.0.1:0") -> Iterator[str]:
    """Serves while the block runs; gives `host:port`."""
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    add_SchedulerServiceServicer_to_server(cast("SchedulerServiceServicer", register), server)
    port = server.add_insecure_port(address)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
