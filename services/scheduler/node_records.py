"""What the scheduler remembers of nodes. Times are milliseconds since 1970."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What a node has."""

    device_bytes: tuple[int, ...]
    """Memory of each accelerator; empty: attempts run on the CPU."""
    device_models: tuple[str, ...] = ()
    """What each of them is."""
    cpu_millis: int
    memory_bytes: int
    slots: int
    """How many attempts it runs at once."""
    software: str = ""
    """What its attempts compute with, in words; empty: not told."""

    @property
    def device_names(self) -> str:
        """What its accelerators are, each kind once; empty: it has none, or has not named them."""
        return " + ".join(sorted(set(self.device_models)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """That a node is to take no new work."""

    since_ms: int
    deadline_ms: int | None
    """When what still runs on it is asked to save and to leave; None: it may run to its end."""
    reason: str
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A trainer process that runs attempts."""

    node: str
    """Its id, without `nodes/`."""
    address: str
    capacity: Capacity
    capacity_message: bytes
    """Serialised `NodeCapacity`."""
    labels: Mapping[str, str]
    generation: str
    version: str
    state: str
    """READY, UNREACHABLE or DRAINING."""
    lease_until_ms: int
    unreachable_ms: int | None
    manager_token: str = field(repr=False)
    drain: Drain | None = None
    """Set while it is to take no new work."""

    @property
    def shown_state(self) -> str:
        """Its state as people see it: drained, it takes no new work, as one that shuts down."""
        return "DRAINING" if self.drain is not None and self.state == "READY" else self.state

    def is_away(self, now_ms: int) -> bool:
        """Returns whether its lease has run out, also after the grace that a restart of the scheduler gives."""
        return self.state == "UNREACHABLE" and self.lease_until_ms < now_ms

    def takes_work(self, now_ms: int) -> bool:
        """Returns whether its lease is live, it is not shutting down and not drained."""
        return self.state == "READY" and self.lease_until_ms >= now_ms and self.drain is None
