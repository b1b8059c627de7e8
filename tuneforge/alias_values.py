"""Aliases and their moves as plain values."""

from dataclasses import dataclass
from datetime import datetime

from tuneforge import _gate_wire, _wire
from tuneforge.gate_values import GateReport
from tuneforge.v1 import aliases_pb2 as pb
from tuneforge.values import Word


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A name that points to one version of a model and can be moved."""

    name: str
    """`projects/{project}/models/{model}/aliases/{alias}`."""
    version: str
    """The version it points to."""
    etag: str
    """Changes with each move."""
    update_time: datetime
    sequence: int = 0
    """Number of its last move, from 1."""


class MoveKind(Word):
    """Kind of a move."""

    SET = "SET"
    ROLLBACK = "ROLLBACK"
    DELETE = "DELETE"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasChange:
    """One move of an alias."""

    name: str
    """`projects/{project}/models/{model}/aliases/{alias}`."""
    sequence: int
    """Number of the move, from 1."""
    kind: MoveKind
    from_version: str | None
    """None for the first move, and for the first one after a deletion."""
    to_version: str | None
    """None for a deletion."""
    restored_sequence: int
    """Of a rollback: the move whose version it brought back; else 0."""
    actor: str
    """Who moved it."""
    reason: str
    """Why, in the words of who moved it."""
    time: datetime
    is_forced: bool
    """Whether it was made against gates that were not passed."""
    gates: GateReport | None
    """What the gates said; None where no policy fits the alias."""


def alias_from_proto(message: pb.Alias) -> Alias:
    """Converts an alias."""
    return Alias(
        name=message.name,
        version=message.version,
        etag=message.etag,
        update_time=_wire.instant(message.update_time),
        sequence=message.sequence,
    )


def change_from_proto(message: pb.AliasChange) -> AliasChange:
    """Converts a move."""
    return AliasChange(
        name=message.name,
        sequence=message.sequence,
        kind=_wire.word(MoveKind, pb.AliasMoveKind.DESCRIPTOR, message.kind),
        from_version=message.from_version or None,
        to_version=message.to_version or None,
        restored_sequence=message.restored_sequence,
        actor=message.actor,
        reason=message.reason,
        time=_wire.instant(message.time),
        is_forced=message.is_forced,
        gates=_gate_wire.report(message.gates) if message.HasField("gates") else None,
    )
