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
    needed_bytes: int = 0
    """Memory that it would need."""


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
    for wanted, room, where in (
        (needs.host_bytes, capacity.memory_bytes, "of host memory"),
        (needs.device_peak_bytes, min(capacity.device_bytes[:devices], default=0), "of memory on a device"),
        (_predicted_on_host(needs, devices), capacity.memory_bytes, "of memory on the host"),
    ):
        if wanted > room and (devices or where != "of memory on a device"):
            return Shortage(what=f"has {gigabytes(room)} {where}", missing_bytes=wanted - room, needed_bytes=wanted)
    return None


def kind_of(needs: Needs, capacity: Capacity) -> tuple[str, str]:
    """Returns what nodes have in common that compute the same numbers: those of a gang, and those of one run."""
    return capacity.software, "" if needs.devices == 0 else capacity.device_names


def peak_on(needs: Needs, capacity: Capacity) -> int:
    """Returns the predicted peak of the memory that it computes in on a node: of its accelerator, else of its host."""
    return needs.device_peak_bytes if devices_on(needs, capacity) else max(needs.host_bytes, needs.peak_bytes)


def _predicted_on_host(needs: Needs, devices: int) -> int:
    return needs.beside_bytes if devices else needs.peak_bytes


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
    return max(needs.host_bytes, _predicted_on_host(needs, devices_on(needs, capacity)))


def gigabytes(count: int) -> str:
    """Returns a size as a person reads it."""
    return f"{count / 1e9:.1f} GB" if count >= 100_000_000 else f"{count / 1e6:.1f} MB"
