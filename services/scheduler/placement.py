"""Which node can hold an attempt, and which one gets it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """Nodes for an attempt."""

    nodes: tuple[str, ...]
    """By rank."""
    why: str
    """Why these, as a sentence."""


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


def choose(needs: Needs, nodes: Sequence[Node], used: Mapping[str, int], checkpoint_node: str | None) -> Place | None:
    """Returns the nodes that get an attempt, or None when not all that it needs have room now.

    Args:
        needs: What the attempt asks of each node.
        nodes: All known nodes.
        used: Slots taken, by node.
        checkpoint_node: Node with the job's newest checkpoint; it comes first, since elsewhere the run begins anew.
    """
    free = {node.node: node.capacity.slots - used.get(node.node, 0) for node in nodes}
    able = [
        node
        for node in nodes
        if node.state == READY and free[node.node] >= slots_on(needs, node.capacity) and shortage(needs, node) is None
    ]
    able.sort(key=lambda node: (node.node != checkpoint_node, -free[node.node], node.node))
    chosen = able[: needs.nodes]
    if len(chosen) < needs.nodes:
        return None
    rooms = [f"nodes/{each.node} has {free[each.node]} of {each.capacity.slots} slots free" for each in chosen]
    has_checkpoint = chosen[0].node == checkpoint_node
    return Place(
        nodes=tuple(node.node for node in chosen),
        why=", ".join(rooms) + (" and the newest checkpoint." if has_checkpoint and len(chosen) == 1 else "."),
    )


def kept_for(needs: Needs, nodes: Sequence[Node], used: Mapping[str, int]) -> frozenset[str]:
    """Returns the nodes that stay free for an attempt on several nodes: those with room, then busy ones by name.

    Args:
        needs: What the attempt asks of each node; not all of its nodes have room now.
        nodes: All known nodes.
        used: Slots taken, by node.

    Returns:
        As many as it needs; none where too few could hold it even if they were idle.
    """
    able = [node for node in nodes if node.state == READY and shortage(needs, node) is None]
    if len(able) < needs.nodes:
        return frozenset()

    def lacking(node: Node) -> int:
        return max(0, slots_on(needs, node.capacity) - (node.capacity.slots - used.get(node.node, 0)))

    able.sort(key=lambda node: (lacking(node), node.node))
    return frozenset(node.node for node in able[: needs.nodes])


def gigabytes(count: int) -> str:
    """Returns a size as a person reads it."""
    return f"{count / 1e9:.1f} GB" if count >= 100_000_000 else f"{count / 1e6:.1f} MB"
