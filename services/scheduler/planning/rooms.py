"""What is free on the nodes while a plan is made: taken, promised and given back, whole gangs only.

Slots are counted always; CPU share and host memory where a node says how much of them it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from services.scheduler.planning.queue import Room, Running, Waiting

Parts = tuple[tuple[str, int], ...]
"""Slots by node."""


@dataclass(slots=True)
class Free:
    """Amounts on one node."""

    slots: int
    cpu_millis: int | None = None
    """None: not counted."""
    bytes: int | None = None

    def holds(self, slots: int, cpu_millis: int, host_bytes: int) -> bool:
        """Returns whether so much is there."""
        return (
            self.slots >= slots
            and (self.cpu_millis is None or self.cpu_millis >= cpu_millis)
            and (self.bytes is None or self.bytes >= host_bytes)
        )

    def add(self, slots: int, cpu_millis: int, host_bytes: int) -> None:
        """Adds amounts, or takes negative ones away."""
        self.slots += slots
        if self.cpu_millis is not None:
            self.cpu_millis += cpu_millis
        if self.bytes is not None:
            self.bytes += host_bytes

    def with_more(self, other: Free) -> Free:
        """Returns the sum."""
        return Free(
            self.slots + other.slots,
            None if self.cpu_millis is None else self.cpu_millis + (other.cpu_millis or 0),
            None if self.bytes is None else self.bytes + (other.bytes or 0),
        )


class Rooms:
    """Amounts by node; `free` can be taken now, `coming` is still held by jobs that were asked to leave."""

    def __init__(self, rooms: Iterable[Room], leaving: Iterable[Running] = ()) -> None:
        self._rooms = {room.node: room for room in rooms}
        self._free = {
            room.node: Free(room.free, room.free_cpu_millis, room.free_bytes) for room in self._rooms.values()
        }
        self._coming: dict[str, Free] = {}
        self._closed: set[str] = set()
        self.free_total = sum(free.slots for free in self._free.values())
        for job in leaving:
            self.leave(job)

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
        return self._fit(job, {node: self.room_on(node) for node in self._free})

    def with_room(self, job: Waiting) -> list[str]:
        """Returns the nodes that could take a part of a job now."""
        return [node for *_, node in self._able(job, self._free)]

    def _able(self, job: Waiting, free: Mapping[str, Free]) -> list[tuple[bool, int, str]]:
        return [
            (node != job.prefers, amount.slots, node)
            for node, amount in free.items()
            if amount.slots >= job.slots
            and node not in self._closed
            and (job.nodes is None or node in job.nodes)
            and amount.holds(*self.asked(job, node))
        ]

    def _fit(self, job: Waiting, free: Mapping[str, Free]) -> Parts | None:
        able = self._able(job, free)
        if len(able) < job.parts:
            return None
        if job.parts == 1:
            return ((min(able)[2], job.slots),)
        chosen = self.alike(job, [node for *_, node in sorted(able)])
        return tuple((node, job.slots) for node in chosen) or None

    def alike(self, job: Waiting, nodes: Iterable[str]) -> Sequence[str]:
        """Returns the first nodes on which a job's parts compute the same numbers; empty: there are too few."""
        kinds: dict[tuple[str, str], list[str]] = {}
        for node in nodes:
            room = self._rooms[node]
            kinds.setdefault((room.software, "" if job.is_on_cpu else room.device), []).append(node)
        return next((same[: job.parts] for same in kinds.values() if len(same) >= job.parts), ())

    def asked(self, job: Waiting, node: str) -> tuple[int, int, int]:
        """Returns what a job takes of a node: slots, CPU share, host memory."""
        room = self._rooms[node]
        return job.slots, job.cpu_millis or job.slots * room.slot_cpu_millis, _host_bytes(job, room)

    def given_by(self, job: Running, node: str) -> tuple[int, int, int]:
        """Returns what a running job holds of a node, as above."""
        slots, room = job.held.get(node, 0), self._rooms[node]
        return slots, job.cpu_millis or slots * room.slot_cpu_millis, _host_bytes(job, room)

    def take(self, job: Waiting, parts: Parts) -> None:
        """Takes what is free now."""
        for node, count in parts:
            slots, cpu_millis, host_bytes = self.asked(job, node)
            self._free[node].add(-slots, -cpu_millis, -host_bytes)
            self.free_total -= count

    def promise(self, job: Waiting, parts: Parts) -> None:
        """Takes amounts, those first that are still to come: nobody else is given them."""
        for node, count in parts:
            slots, cpu_millis, host_bytes = self.asked(job, node)
            coming = self._coming.get(node, Free(0, 0, 0))
            later = min(count, coming.slots)
            later_cpu, later_bytes = min(cpu_millis, coming.cpu_millis or 0), min(host_bytes, coming.bytes or 0)
            coming.add(-later, -later_cpu, -later_bytes)
            self._free[node].add(later - slots, later_cpu - cpu_millis, later_bytes - host_bytes)
            self.free_total -= count - later

    def leave(self, job: Running) -> None:
        """Notes that a job will give back what it holds."""
        for node in job.held:
            if node in self._rooms:
                self._coming.setdefault(node, Free(0, 0, 0)).add(*self.given_by(job, node))

    def close(self, nodes: Iterable[str]) -> None:
        """Keeps everybody else off some nodes."""
        for node in nodes:
            self._closed.add(node)
            self.free_total -= self._free[node].slots

    def largest(self, job: Waiting) -> list[str]:
        """Returns the nodes that a job could ever use, those first that have most of what it needs free or coming."""
        able = [
            (-self.room_on(node).slots, node)
            for node, room in self._rooms.items()
            if room.slots >= job.slots and node not in self._closed and (job.nodes is None or node in job.nodes)
        ]
        return [node for _, node in sorted(able)]

    def room_on(self, node: str) -> Free:
        """Returns what of a node is free or coming, and not promised."""
        free, coming = self._free[node], self._coming.get(node)
        return free if coming is None else free.with_more(coming)

    def words(self, node: str) -> str:
        """Returns how a node stands, for a person."""
        return f"nodes/{node} has {self._free[node].slots} of {self._rooms[node].slots} slots free"


def _host_bytes(job: Waiting | Running, room: Room) -> int:
    return max(job.host_bytes, job.peak_bytes if room.peaks_on_host else job.beside_bytes)
