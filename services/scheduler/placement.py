"""Which node can hold an attempt, and which one gets it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.scheduler.records import Capacity, Needs, Node
from services.scheduler.store.nodes import READY


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """Why a node can never hold an attempt."""

    what: str
    """What it lacks, as a sentence."""
    missing_bytes: int = 0
    """Memory that it lacks; 0 when it lacks something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A node for an attempt."""

    node: str
    why: str
    """Why this one, as a sentence."""


def devices_on(needs: Needs, capacity: Capacity) -> int:
    """Returns how many accelerators an attempt takes on a node."""
    if needs.devices is not None:
        return needs.devices
    return 1 if capacity.device_bytes else 0


def slots_on(needs: Needs, capacity: Capacity) -> int:
    """Returns how many of a node's slots an attempt takes: one a device, one on the CPU."""
    return max(1, devices_on(needs, capacity))


def shortage(needs: Needs, node: Node) -> Shortage | None:
    """Returns why a node could not hold an attempt even if it were idle, or None."""
    capacity = node.capacity
    for key, value in needs.labels.items():
        if node.labels.get(key) != value:
            return Shortage(what=f"lacks the label {key}={value}")
    devices = devices_on(needs, capacity)
    if devices > len(capacity.device_bytes):
        return Shortage(what=f"has {len(capacity.device_bytes)} accelerators, {devices} are asked for")
    if needs.cpu_millis > capacity.cpu_millis:
        return Shortage(what=f"has {capacity.cpu_millis} CPU millis, {needs.cpu_millis} are asked for")
    if needs.host_bytes > capacity.memory_bytes:
        missing = needs.host_bytes - capacity.memory_bytes
        return Shortage(what=f"has {gigabytes(capacity.memory_bytes)} of host memory", missing_bytes=missing)
    room = min(capacity.device_bytes[:devices]) if devices else capacity.memory_bytes
    if needs.peak_bytes > room:
        where = "a device" if devices else "the host"
        return Shortage(what=f"has {gigabytes(room)} of memory on {where}", missing_bytes=needs.peak_bytes - room)
    return None


def choose(needs: Needs, nodes: Iterable[Node], used: Mapping[str, int], checkpoint_node: str | None) -> Place | None:
    """Returns the node that gets an attempt, or None when none has room now.

    Args:
        needs: What the attempt asks for.
        nodes: All known nodes.
        used: Slots taken, by node.
        checkpoint_node: Node with the job's newest checkpoint; it wins, since elsewhere the run begins anew.
    """
    best: tuple[tuple[bool, int, str], Place] | None = None
    for node in nodes:
        free = node.capacity.slots - used.get(node.node, 0)
        if node.state != READY or free < slots_on(needs, node.capacity) or shortage(needs, node) is not None:
            continue
        has_checkpoint = node.node == checkpoint_node
        why = f"nodes/{node.node} has {free} of {node.capacity.slots} slots free"
        place = Place(node=node.node, why=why + (" and the newest checkpoint." if has_checkpoint else "."))
        rank = (not has_checkpoint, -free, node.node)
        if best is None or rank < best[0]:
            best = (rank, place)
    return best[1] if best else None


def gigabytes(count: int) -> str:
    """Returns a size as a person reads it."""
    return f"{count / 1e9:.1f} GB" if count >= 100_000_000 else f"{count / 1e6:.1f} MB"
