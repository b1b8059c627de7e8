"""Aliases and their moves as plain values; times are microseconds since 1970 in UTC."""

from dataclasses import dataclass
from enum import StrEnum

from tuneforge.names import AliasName

LONGEST_REASON = 1024
"""Characters of the reason for a move of an alias."""


class MoveKind(StrEnum):
    """What a move was; the values are those of the contract without their prefix."""

    SET = "SET"
    ROLLBACK = "ROLLBACK"
    DELETE = "DELETE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A name that points to one version of a model."""

    name: AliasName
    version: int
    """0: it was deleted."""
    sequence: int
    """Number of its last move, from 1."""
    update_time_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasMove:
    """The wish to point an alias to a version, or to nothing."""

    name: AliasName
    kind: MoveKind = MoveKind.SET
    version: int
    """0: it is deleted."""
    etag: str = ""
    """The etag it must have; `absent`: it must not exist; empty: whatever it is."""
    restored_sequence: int = 0
    """Of a rollback: the move whose version is brought back."""
    reason: str
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the gates said of a move."""

    is_forced: bool = False
    """Whether the move is made against gates that were not passed."""
    report: bytes = b""
    """A serialised `GateReport`; empty where no policy fits the alias."""


UNGATED = Verdict()
"""No policy fits the alias."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasChange:
    """One move of an alias that took place."""

    name: AliasName
    sequence: int
    position: int
    """Number of the move among all of the project, from 1."""
    kind: MoveKind
    from_version: int
    """0: it named nothing."""
    to_version: int
    """0: it names nothing from then on."""
    restored_sequence: int
    actor: str
    reason: str
    time_us: int
    verdict: Verdict
