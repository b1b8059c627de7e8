"""What each node says to a job: whether it could hold a part, and why not, or why not now. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from services.scheduler.placement import gigabytes, kind_of, shortage
from services.scheduler.planning.queue import Queue, Waiting
from services.scheduler.planning.rooms import Rooms
from services.scheduler.records import Needs, Node


class Lack(StrEnum):
    """What a node lacks; spelt as the blocker's reason."""

    LABELS = "LABELS"
    DEVICES = "DEVICES"
    MEMORY = "MEMORY"
    CPU = "CPU"
    UNLIKE_NODES = "UNLIKE_NODES"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one node says."""

    node: str
    could_hold: bool
    """If it were idle."""
    is_away: bool
    """It does not answer, is shutting down or drained."""
    why_not: str
    """Empty: it has room now."""
    lack: Lack | None
    """Set unless it could hold a part."""
    free_slots: int
    slots: int
    missing_bytes: int = 0


def findings(needs: Needs, waiting: Waiting | None, queue: Queue, nodes: Sequence[Node]) -> list[Finding]:
    """Returns what each known node says, by name.

    Args:
        needs: What the job asks of a node.
        waiting: The job as the planner sees it; None: it runs, and only what it could use is said.
        queue: The moment.
        nodes: All known nodes.
    """
    rooms = {room.node: room for room in queue.rooms}
    space = Rooms(queue.rooms)
    home = next((node for node in nodes if waiting is not None and node.node == waiting.like), None)
    found = []
    for node in sorted(nodes, key=lambda each: each.node):
        lack = shortage(needs, node)
        is_unlike = home is not None and kind_of(needs, node.capacity) != kind_of(needs, home.capacity)
        room = rooms.get(node.node)
        if lack is not None:
            missing = f"; it lacks {gigabytes(lack.missing_bytes)}" if lack.missing_bytes else ""
            why = lack.what + missing
        elif home is not None and is_unlike:
            why = f"computes other numbers than nodes/{home.node}, where its checkpoint was made"
        elif room is None:
            why = _away(node, queue.now_ms)
        else:
            why = _full(waiting, node.node, space) if waiting is not None else ""
        found.append(
            Finding(
                node=node.node,
                could_hold=lack is None and not is_unlike,
                is_away=room is None,
                why_not=why,
                lack=_kind(needs, node) if lack is not None else Lack.UNLIKE_NODES if is_unlike else None,
                free_slots=room.free if room is not None else 0,
                slots=node.capacity.slots,
                missing_bytes=lack.missing_bytes if lack is not None else 0,
            )
        )
    return found


def _away(node: Node, now_ms: int) -> str:
    if node.drain is not None:
        said = f": {node.drain.reason}" if node.drain.reason else ""
        return f"is drained by {node.drain.actor}{said}"
    if node.state == "DRAINING":
        return "is shutting down"
    if node.lease_until_ms < now_ms:
        return f"has not answered for {(now_ms - node.lease_until_ms) // 1000} s"
    return "has not been heard since the scheduler started"


def _full(job: Waiting, node: str, rooms: Rooms) -> str:
    """Returns why a node has no room now; empty: it has."""
    slots, cpu_millis, host_bytes = rooms.asked(job, node)
    free = rooms.room_on(node)
    if free.slots < slots:
        return f"has {free.slots} free slots, {slots} are asked for"
    if free.cpu_millis is not None and free.cpu_millis < cpu_millis:
        return f"has {free.cpu_millis} CPU millis free, {cpu_millis} are asked for"
    if free.bytes is not None and free.bytes < host_bytes:
        return f"has {gigabytes(max(0, free.bytes))} of host memory free, {gigabytes(host_bytes)} are asked for"
    return ""


_CLEARED: tuple[tuple[Lack, dict[str, object]], ...] = (
    (Lack.LABELS, {"labels": {}, "exclude_labels": {}, "exclude_nodes": frozenset()}),
    (Lack.DEVICES, {"devices": 0, "device_kinds": ()}),
    (Lack.CPU, {"cpu_millis": 0}),
    (Lack.MEMORY, {"host_bytes": 0, "peak_bytes": 0, "device_peak_bytes": 0, "beside_bytes": 0}),
)


def _kind(needs: Needs, node: Node) -> Lack:
    """Returns the first thing that a node lacks: the one without which the answer would be another one."""
    first = shortage(needs, node)
    for lack, values in _CLEARED:
        if lack is Lack.DEVICES and first is not None and first.missing_bytes:
            continue
        if shortage(replace(needs, **values), node) != first:  # type: ignore[arg-type]
            return lack
    return Lack.MEMORY
