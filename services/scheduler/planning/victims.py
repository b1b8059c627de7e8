"""Which running jobs are stopped so that a waiting one can start: those whose stop loses least work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.scheduler.planning.order import Key, goes_before
from services.scheduler.planning.queue import Queue, Running, Waiting
from services.scheduler.planning.rooms import Free, Parts, Rooms


@dataclass(frozen=True, slots=True)
class Candidate:
    """A running job that may be stopped."""

    key: Key
    job: Running
    price: float
    """Work that is lost, over the weight of its project: a project with twice the share loses half as often."""
    is_settled: bool = True
    """Whether it has run its quantum; before, only a job of a higher class may stop it."""
    is_guaranteed: bool = False
    """Whether it is among the devices that are guaranteed to its project: only jobs of the same one may take them."""


def candidates(queue: Queue, keys: dict[int, Key]) -> list[Candidate]:
    """Returns the running jobs that may be stopped at this moment, the cheapest first."""
    if not queue.rules.preempts:
        return []
    found = [
        Candidate(
            keys[job.job],
            job,
            job.loss_ms / queue.project(job.project).weight,
            is_settled=queue.now_ms - job.start_ms >= _quantum_ms(queue, job),
        )
        for job in queue.running
        if job.is_preemptible and not job.is_leaving
    ]
    found.sort(key=lambda each: (each.price / max(1, each.job.devices), -each.job.start_ms, each.job.job))
    return _with_guarantees(queue, found)


def _with_guarantees(queue: Queue, found: list[Candidate]) -> list[Candidate]:
    """Marks those that would take a project below the devices that are guaranteed to it, the dearest ones."""
    if not any(project.guaranteed_devices for project in queue.projects.values()):
        return found
    spare: dict[str, int] = {}
    for job in queue.running:
        before = spare.get(job.project, -queue.project(job.project).guaranteed_devices)
        spare[job.project] = before + (0 if job.is_leaving else job.devices)
    marked = []
    for each in found:
        project = each.job.project
        is_guaranteed = bool(queue.project(project).guaranteed_devices) and spare[project] < each.job.devices
        if not is_guaranteed:
            spare[project] -= each.job.devices
        marked.append(replace(each, is_guaranteed=is_guaranteed))
    return marked


def _quantum_ms(queue: Queue, job: Running) -> float:
    cost_ms = job.loss_ms / max(1, job.devices) if job.restore_ms is None else job.restore_ms
    return max(queue.rules.quantum_ms, queue.rules.quantum_losses * cost_ms)


def choose(job: Waiting, key: Key, able: Sequence[Candidate], rooms: Rooms) -> tuple[list[Candidate], Parts] | None:
    """Returns the jobs to stop so that a job fits, and where it then fits; None when stopping cannot help.

    Nodes are emptied one after another, the cheapest first, until the gang has its parts; on each node jobs are stopped
    in order of price per device. A job over several nodes frees its slots on all of them.
    """
    lower = [
        each for each in able if _may_stop(key, each) and (not each.is_guaranteed or each.job.project == job.project)
    ]
    if not lower:
        return None
    plans = []
    held = _by_node(lower)
    for node in rooms.largest(job):
        asked = rooms.asked(job, node)
        room, stopped = rooms.room_on(node).with_more(Free(0, 0, 0)), []
        for each in held.get(node, ()):
            if room.holds(*asked):
                break
            room.add(*rooms.given_by(each.job, node))
            stopped.append(each)
        if room.holds(*asked):
            price = sum(each.price for each in stopped)
            plans.append((price, node, _needed(stopped, job, node, rooms)))
    plans.sort(key=lambda plan: plan[:2])
    chosen = rooms.alike(job, (node for _, node, _ in plans))
    if not chosen:
        return None
    victims = {each.job.job: each for _, node, stopped in plans if node in chosen for each in stopped}
    return list(victims.values()), tuple((node, job.slots) for node in chosen)


def of_project(project: str, key: Key, able: Sequence[Candidate]) -> list[Candidate]:
    """Returns the jobs of a project that one of it may stop, the cheapest first."""
    return [each for each in able if each.job.project == project and _may_stop(key, each)]


def _may_stop(key: Key, each: Candidate) -> bool:
    return goes_before(key, each.key) and (each.is_settled or key[0] < each.key[0])


def _by_node(lower: Sequence[Candidate]) -> dict[str, list[Candidate]]:
    found: dict[str, list[Candidate]] = {}
    for each in lower:
        for node in each.job.held:
            found.setdefault(node, []).append(each)
    return found


def _needed(stopped: list[Candidate], job: Waiting, node: str, rooms: Rooms) -> list[Candidate]:
    """Leaves out jobs that need not be stopped after all: a later, larger one frees enough without them."""
    needed = list(stopped)
    for each in sorted(stopped, key=lambda candidate: -candidate.price):
        room = rooms.room_on(node).with_more(Free(0, 0, 0))
        for other in needed:
            if other is not each:
                room.add(*rooms.given_by(other.job, node))
        if room.holds(*rooms.asked(job, node)):
            needed.remove(each)
    return needed
