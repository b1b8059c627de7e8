"""What an import wants, and what a place has; how one is chosen from the other is in `selection.py`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file at a place."""

    path: str
    """As it will be named in the version."""
    key: str
    """As the place names it."""
    size_bytes: int = 0
    """0 where the place does not say."""
    tag: str = ""
    """Changes with the content; empty: the place knows none, and a broken transfer starts anew."""
    sha256: str = ""
    """Where the place knows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an import takes."""

    kind: str
    """`dataset` or `model`."""
    include: tuple[str, ...] = ()
    split: str = ""
    config: str = ""
    largest_bytes: int = 0
    most_files: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What is to be fetched, as it was asked for."""

    project: str
    uri: str
    connection: str
    wanted: Wanted
