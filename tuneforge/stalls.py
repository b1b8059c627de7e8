"""Attempts that make no progress: the event that tells of one, which `tuneforge.events` hands on."""

from dataclasses import dataclass
from datetime import datetime

from tuneforge import _wire
from tuneforge.v1 import events_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """An attempt makes no progress, or goes on after that."""

    attempt: int
    since: datetime
    """Its last sign of progress."""
    message: str
    stacks: str
    """What each thread of its process was doing; empty when it did not answer."""
    is_over: bool
    node_rank: int = 0
    """Rank of the node inside the attempt: of several nodes each tells what its own process was doing."""
    node: str = ""
    """`nodes/{node}`; empty with schedulers of earlier releases."""


def stall_from_proto(message: pb.Stall) -> Stall:
    """Converts the message."""
    return Stall(
        attempt=message.attempt,
        since=_wire.instant(message.since),
        message=message.message,
        stacks=message.stacks,
        is_over=message.is_over,
        node_rank=message.node_rank,
        node=message.node,
    )
