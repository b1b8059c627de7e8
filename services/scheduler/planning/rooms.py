"""Free slots of the nodes while a plan is made: taken, promised and given back, whole gangs only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.scheduler.planning.queue import Room, Waiting

Parts = tuple[tuple[str, int], ...]
"""Slots by node."""


class Rooms:
    """Slots by node; `free` can be taken now, `coming` is still held by jobs that were asked to leave."""

    def __init__(self, rooms: Iterable[Room], coming: Mapping[str, int] | None = None) -> None:
        self._slots = {room.node: room.slots for room in rooms}
        self._free = {room.node: room.free for room in rooms}
        self._coming = {node: count for node, count in (coming or {}).items() if node in self._slots}
        self._closed: set[str] = set()
        self.free_total = sum(self._free.values())

    def fit(self, job: Waiting) -> Parts | None:
        """Returns where a job fits now, or None.

        Best fit: the fullest nodes that still hold a part, so that empty nodes stay whole for jobs that need one; but
        first of all the node with the job's checkpoint.
        """
        return self._fit(job, self._free)

    def fit_when_left(self, job: Waiting) -> Parts | None:
        """Returns where a job fits once all that were asked to leave have left, or None."""
        if not self._coming:
            return None
        return self._fit(job, {node: free + self._coming.get(node, 0) for node, free in self._free.items()})

    def _fit(self, job: Waiting, free: Mapping[str, int]) -> Parts | None:
        able = [
            (node != job.prefers, count, node)
            for node, count in free.items()
            if count >= job.slots and node not in self._closed and (job.nodes is None or node in job.nodes)
        ]
        if len(able) < job.parts:
            return None
        chosen = [min(able)] if job.parts == 1 else sorted(able)[: job.parts]
        return tuple((node, job.slots) for _, _, node in chosen)

    def take(self, parts: Parts) -> None:
        """Takes slots that are free now."""
        for node, count in parts:
            self._free[node] -= count
            self.free_total -= count

    def promise(self, parts: Parts) -> None:
        """Takes slots, those first that are still to come: nobody else is given them."""
        for node, count in parts:
            later = min(count, self._coming.get(node, 0))
            if later:
                self._coming[node] -= later
            self._free[node] -= count - later
            self.free_total -= count - later

    def leave(self, held: Mapping[str, int]) -> None:
        """Notes that a job will give its slots back."""
        for node, count in held.items():
            if node in self._slots:
                self._coming[node] = self._coming.get(node, 0) + count

    def close(self, nodes: Iterable[str]) -> None:
        """Keeps everybody else off some nodes."""
        for node in nodes:
            self._closed.add(node)
            self.free_total -= self._free[node]

    def largest(self, job: Waiting) -> list[str]:
        """Returns the nodes that a job could ever use, those first that have most of what it needs free or coming."""
        able = [
            (-(self._free[node] + self._coming.get(node, 0)), node)
            for node, slots in self._slots.items()
            if slots >= job.slots and node not in self._closed and (job.nodes is None or node in job.nodes)
        ]
        return [node for _, node in sorted(able)]

    def room_on(self, node: str) -> int:
        """Returns the slots of a node that are free or coming, and not promised."""
        return self._free.get(node, 0) + self._coming.get(node, 0)
