"""Aliases and their moves as plain values; times are microseconds since 1970 in UTC."""

from dataclasses import dataclass

from tuneforge.names import AliasName

LONGEST_REASON = 1024
"""Characters of the reason for a move of an alias."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A name that points to one version of a model."""

    name: AliasName
    version: int
    sequence: int
    """Number of its last move, from 1."""
    update_time_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasMove:
    """The wish to point an alias to a version."""

    name: AliasName
    version: int
    etag: str
    """The etag it must have; `absent`: it must not exist; empty: whatever it is."""
    reason: str
    actor: str
    time_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasChange:
    """One move of an alias that took place."""

    sequence: int
    from_version: int
    """0 for the first move."""
    to_version: int
    actor: str
    reason: str
    time_us: int
