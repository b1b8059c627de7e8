"""Nodes: the machines that run attempts, as the scheduler or the node itself sees them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from tuneforge import _short_names as names
from tuneforge import _wire
from tuneforge._connections import Connections
from tuneforge._transport import new_request_id
from tuneforge.errors import InvalidArgument, Reason
from tuneforge.v1 import nodes_pb2 as pb
from tuneforge.v1.scheduler_pb2 import DrainNodeRequest, ListNodesRequest, UndrainNodeRequest
from tuneforge.v1.trainer_pb2 import GetNodeRequest
from tuneforge.values import Word


class NodeState(Word):
    """Whether a node can be given work."""

    UNKNOWN = "UNKNOWN"
    READY = "READY"
    UNREACHABLE = "UNREACHABLE"
    """Its lease has run out; its attempts may still be running."""
    DRAINING = "DRAINING"
    """It takes no new work: it is shutting down, or it is drained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One accelerator."""

    index: int
    model: str
    """What it is, e.g. `NVIDIA H200`."""
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDrain:
    """That a node takes no new work until it is undrained."""

    start_time: datetime
    deadline: datetime | None
    """When its jobs are asked to save and to leave; None: they run to their end."""
    reason: str
    actor: str
    """Who has asked for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One trainer process and what it has."""

    name: str
    """`nodes/{node}`."""
    address: str
    """Where its TrainerService listens."""
    state: NodeState
    is_managed: bool
    """Whether a scheduler manages it."""
    devices: tuple[Device, ...]
    """Empty: attempts run on the CPU."""
    cpu_millis: int
    """Processor share for attempts in thousandths of a core."""
    memory_bytes: int
    slots: int
    """How many attempts it runs at once."""
    labels: Mapping[str, str]
    attempts: tuple[str, ...]
    """Names of the attempts that it holds."""
    lease_expire_time: datetime | None
    version: str
    """Version of Tuneforge that it runs."""
    software: str = ""
    """Versions of the libraries and the kind of processor that its attempts compute with; empty: not told."""
    drain: NodeDrain | None = None
    """Set while it takes no new work because of its maintenance."""


class Nodes:
    """Nodes; `client.nodes`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def list(self) -> Iterator[Node]:
        """Yields the scheduler's nodes by name."""
        scheduler = self._connections.scheduler
        for page in scheduler.pages(scheduler.stub.ListNodes, ListNodesRequest()):
            yield from map(_node, page.nodes)

    def drain(self, node: str, *, reason: str = "", deadline: datetime | None = None) -> Node:
        """Has a node take no new work, for its maintenance, until `undrain`; also when it is started anew meanwhile.

        Args:
            node: Id or name.
            reason: Why, for whoever reads the list of nodes; at most 1024 characters.
            deadline: When its jobs save and go on elsewhere, with a time zone; None: they run to their end.

        Raises:
            NotFound: There is no such node.
        """
        scheduler = self._connections.scheduler
        request = DrainNodeRequest(name=names.node(node), reason=reason, request_id=new_request_id())
        if deadline is not None:
            if deadline.tzinfo is None:
                message = "`deadline` has no time zone"
                raise InvalidArgument(Reason.INVALID_FIELD, message, cure="Use e.g. datetime.now(UTC).")
            request.deadline.FromDatetime(deadline.astimezone(UTC))
        return _node(scheduler.call(scheduler.stub.DrainNode, request))

    def undrain(self, node: str) -> Node:
        """Lets a drained node take work again.

        Raises:
            NotFound: There is no such node.
        """
        scheduler = self._connections.scheduler
        request = UndrainNodeRequest(name=names.node(node), request_id=new_request_id())
        return _node(scheduler.call(scheduler.stub.UndrainNode, request))

    def ask(self) -> Node:
        """Returns the node behind the client's trainer address, asked directly."""
        trainer = self._connections.trainer
        return _node(trainer.call(trainer.stub.GetNode, GetNodeRequest()))


def _node(message: pb.Node) -> Node:
    return Node(
        name=message.name,
        address=message.address,
        state=_wire.word(NodeState, pb.NodeState.DESCRIPTOR, message.state),
        is_managed=message.is_managed,
        devices=tuple(
            Device(index=device.index, model=device.model, memory_bytes=device.memory_bytes)
            for device in message.capacity.devices
        ),
        cpu_millis=message.capacity.cpu_millis,
        memory_bytes=message.capacity.memory_bytes,
        slots=message.capacity.slots,
        software=message.capacity.software,
        labels=_wire.frozen(message.labels),
        attempts=tuple(attempt.name for attempt in message.attempts),
        lease_expire_time=_wire.instant_or_none(message.lease_expire_time),
        version=message.version,
        drain=_drain(message.drain) if message.HasField("drain") else None,
    )


def _drain(message: pb.NodeDrain) -> NodeDrain:
    return NodeDrain(
        start_time=_wire.instant(message.start_time),
        deadline=_wire.instant_or_none(message.deadline),
        reason=message.reason,
        actor=message.actor,
    )
