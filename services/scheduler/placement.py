"""Whether a node could hold an attempt if it were idle, and what the attempt takes of it. Pure.

Which node gets it is the planner's matter (`planning/`).
"""

from __future__ import annotations

from dataclasses import dataclass

from services.scheduler.records import Capacity, Needs, Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """Why a node can never hold an attempt."""

    what: str
    """What it lacks, as a sentence."""
    missing_bytes: int = 0
    """Memory that it lacks; 0 when it lacks something else."""


def devices_on(needs: Needs, capacity: Capacity) -> int:
    """Returns how many accelerators an attempt takes on a node."""
    if needs.devices is not None:
        return needs.devices
    return 1 if capacity.device_bytes else 0


def shortage(needs: Needs, node: Node) -> Shortage | None:
    """Returns why a node could not hold an attempt even if it were idle, or None."""
    capacity = node.capacity
    for key, value in needs.labels.items():
        if node.labels.get(key) != value:
            return Shortage(what=f"lacks the label {key}={value}")
    if (why := _excluded(needs, node)) is not None:
        return why
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


def _excluded(needs: Needs, node: Node) -> Shortage | None:
    """Returns why a job must not run on a node, or None."""
    if node.node in needs.exclude_nodes:
        return Shortage(what="is excluded by name")
    for key, value in needs.exclude_labels.items():
        if key in node.labels and value in ("", node.labels[key]):
            return Shortage(what=f"carries the excluded label {key}={node.labels[key]}")
    if needs.device_kinds:
        models = node.capacity.device_models
        if not models or not all(any(kind in model.lower() for kind in needs.device_kinds) for model in models):
            found = ", ".join(sorted(set(models))) or "no accelerators"
            return Shortage(what=f"has {found}, not {' or '.join(needs.device_kinds)}")
    return None


def host_bytes_on(needs: Needs, capacity: Capacity) -> int:
    """Returns how much of a node's host memory an attempt takes: what it asks for, or what it is predicted to need."""
    on_host = needs.peak_bytes if devices_on(needs, capacity) == 0 else 0
    return max(needs.host_bytes, on_host)


def gigabytes(count: int) -> str:
    """Returns a size as a person reads it."""
    return f"{count / 1e9:.1f} GB" if count >= 100_000_000 else f"{count / 1e6:.1f} MB"
