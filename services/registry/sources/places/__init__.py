"""The places themselves; imported in the child process of an import only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.registry.sources.parts import Arrived, Part
from services.registry.sources.wanted import Entry


@dataclass(frozen=True, slots=True)
class Listing:
    """What is at a place."""

    revision: str
    """What the address means now; empty where the place knows none."""
    entries: Sequence[Entry]


class Place(Protocol):
    """Somewhere that files are fetched from. Its methods block and raise `SourceFault`, `AddressRefused`, `OSError`."""

    def look(self) -> Listing:
        """Returns what is there."""

    def fetch(self, part: Part, tell: Callable[[int], None]) -> Arrived:
        """Brings one file into its part."""
