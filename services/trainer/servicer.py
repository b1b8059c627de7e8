"""The trainer's methods: read, call the agent, answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from services.grpckit import context
from services.grpckit.errors import invalid_fields, not_found
from services.trainer.agent import Agent
from services.trainer.attempts import AttemptView
from services.trainer.events import parse
from services.trainer.watching import follow
from services.trainer.wire import node_to_proto, read_start, read_stop, status_to_proto
from tuneforge.names import AttemptName, NodeName, project_of
from tuneforge.v1 import nodes_pb2, trainer_pb2, trainer_pb2_grpc


class TrainerServicer(trainer_pb2_grpc.TrainerServiceServicer):
    """Answers for one node."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def GetNode(self, request: trainer_pb2.GetNodeRequest, _: Any) -> nodes_pb2.Node:
        """Returns this node, with those attempts that the caller may see."""
        node = self._agent.node()
        if request.name and str(NodeName.parse(request.name)) != node.name:
            raise not_found("node here", request.name)
        return node_to_proto(node, _may_see)

    async def StartAttempt(self, request: trainer_pb2.StartAttemptRequest, _: Any) -> nodes_pb2.AttemptStatus:
        """Starts an attempt, or returns it when it was started before."""
        return status_to_proto(await self._agent.start_attempt(read_start(request)))

    async def WatchAttempt(
        self, request: trainer_pb2.WatchAttemptRequest, _: Any
    ) -> AsyncIterator[trainer_pb2.WatchAttemptResponse]:
        """Streams the events of an attempt."""
        attempt = self._agent.attempt(AttemptName.parse(request.name), request.node_rank)
        async for records, view in follow(attempt, request.after_seq):
            yield trainer_pb2.WatchAttemptResponse(
                events=[parse(record.payload) for record in records], status=status_to_proto(view)
            )

    async def AckEvents(self, request: trainer_pb2.AckEventsRequest, _: Any) -> nodes_pb2.AttemptStatus:
        """Drops events that are kept elsewhere."""
        name = AttemptName.parse(request.name)
        if (view := await self._agent.forgotten(name, request.node_rank, request.token)) is None:
            attempt = self._agent.attempt(name, request.node_rank)
            self._agent.check_token(attempt, request.token)
            view = await self._agent.acknowledge(attempt, request.seq, is_final=request.is_final)
        return status_to_proto(view)

    async def StopAttempt(self, request: trainer_pb2.StopAttemptRequest, _: Any) -> nodes_pb2.AttemptStatus:
        """Asks an attempt to stop."""
        name = AttemptName.parse(request.name)
        mode, grace_s, problems = read_stop(request)
        if problems:
            raise invalid_fields(problems)
        if (view := await self._agent.forgotten(name, request.node_rank, request.token)) is None:
            attempt = await self._agent.settled(name, request.node_rank)
            self._agent.check_token(attempt, request.token)
            view = self._agent.stop_attempt(attempt, mode, grace_s)
        return status_to_proto(view)


def _may_see(view: AttemptView) -> bool:
    return context.current().principal.may_touch(project_of(view.name))
