"""The RPCs of maintenance and of the ledger of work: read the request, call a rule, answer. No rules here."""

from __future__ import annotations

from typing import Any

import grpc

from services.scheduler.draining import drain, undrain
from services.scheduler.nodes import Nodes
from services.scheduler.store import losses
from services.scheduler.verbs import call_of
from services.scheduler.wire.scheduling import ledger_to_proto
from services.scheduler.wire.times import milliseconds
from tuneforge.names import NodeName, ProjectName
from tuneforge.v1 import nodes_pb2, scheduler_pb2, scheduling_pb2

Context = grpc.aio.ServicerContext[Any, Any]

OF_NO_PROJECT = "-"
"""Stands for the project of a call about what belongs to none."""


class NodeCalls:
    """These methods; `SchedulerServicer` takes them over.

    Args:
        nodes: Registrations and leases.
    """

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    async def DrainNode(self, request: scheduler_pb2.DrainNodeRequest, _: Context) -> nodes_pb2.Node:
        """Has a node take no new work."""
        name = NodeName.parse(request.name)
        call = call_of(request, OF_NO_PROJECT, "DrainNode")
        deadline_ms = milliseconds(request.deadline) if request.HasField("deadline") else None
        return nodes_pb2.Node.FromString(await drain(self._nodes, name.node, request.reason, deadline_ms, call))

    async def UndrainNode(self, request: scheduler_pb2.UndrainNodeRequest, _: Context) -> nodes_pb2.Node:
        """Lets a drained node take work again."""
        name = NodeName.parse(request.name)
        call = call_of(request, OF_NO_PROJECT, "UndrainNode")
        return nodes_pb2.Node.FromString(await undrain(self._nodes, name.node, call))

    async def GetWorkLedger(self, request: scheduler_pb2.GetWorkLedgerRequest, _: Context) -> scheduling_pb2.WorkLedger:
        """Says what a project's devices were used for."""
        project = ProjectName.parse(request.parent).project
        return ledger_to_proto(await self._nodes.ledger.read(lambda db: losses.of_project(db, project)))
