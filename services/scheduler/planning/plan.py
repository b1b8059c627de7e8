"""The plan of one moment: which waiting jobs start where, which running ones give way, and who is kept a place.

Jobs are looked at in the order of their keys (`order.py`). One that fits starts. One that does not fit may have running
jobs stopped for it (`victims.py`); until these have left, their slots are promised to it. The first that still does not
fit and has waited long keeps others off the nodes that it needs, so that a large job never starves below small ones.
Nothing is remembered: the next plan derives all of it again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from services.scheduler.planning import victims
from services.scheduler.planning.order import Key, goes_before, in_order, running_key, standings
from services.scheduler.planning.queue import Queue, Waiting
from services.scheduler.planning.rooms import Parts, Rooms
from services.scheduler.planning.victims import Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """A waiting job starts."""

    job: int
    parts: Parts
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveWay:
    """A running job is stopped after it has saved its state."""

    job: int
    to_job: int
    """For whom."""
    loss_ms: float
    """Work that this costs."""
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """A waiting job is kept a place: nobody else gets these slots."""

    job: int
    nodes: tuple[str, ...]
    why: str


Decision = Begin | GiveWay | Keep

_Demand = tuple[int, int, int, int, int, int, bool, frozenset[str] | None]
"""Nodes; slots, CPU share, host memory and predicted peak on each; whether on the CPU; where."""


def plan(queue: Queue) -> list[Decision]:
    """Returns what is to be done now, in the order of the jobs' keys."""
    if not queue.waiting or not queue.rooms:
        return []
    return _Planner(queue).run()


@dataclass(slots=True)
class _Planner:
    queue: Queue
    rooms: Rooms = field(init=False)
    able: list[Candidate] = field(init=False)
    decisions: list[Decision] = field(default_factory=list)
    devices: dict[str, int] = field(default_factory=dict)
    """Devices that each project holds, those of this plan included."""
    jobs: dict[str, int] = field(default_factory=dict)
    """Jobs of each project that run, those of this plan included."""
    too_large: set[_Demand] = field(default_factory=set)
    """Demands that did not fit: later jobs that ask for the same need not be tried."""
    too_large_later: set[_Demand] = field(default_factory=set)
    """The same once all that were asked to leave have left."""
    too_weak: set[tuple[_Demand, str]] = field(default_factory=set)
    """Demands, with their project, for which nobody can be stopped: nor for later ones, which go after fewer."""
    too_full: set[tuple[str, int]] = field(default_factory=set)
    """Projects and devices for which nobody can, or need, be stopped for a quota."""
    impossible: set[_Demand] = field(default_factory=set)
    """Demands that not even idle nodes could hold."""
    worst: Key | None = None
    """Key of the running job that anybody else would be stopped after."""
    has_reserved: bool = False

    def __post_init__(self) -> None:
        for job in self.queue.running:
            self.devices[job.project] = self.devices.get(job.project, 0) + job.devices
            self.jobs[job.project] = self.jobs.get(job.project, 0) + 1
        self.rooms = Rooms(self.queue.rooms, (job for job in self.queue.running if job.is_leaving))

    def run(self) -> list[Decision]:
        by_project = standings(self.queue)
        running = {job.job: running_key(job, self.queue, by_project[job.project]) for job in self.queue.running}
        self.able = victims.candidates(self.queue, running)
        self._find_worst()
        for key, job in in_order(self.queue, by_project):
            may_stop = self.worst is not None and goes_before(key, self.worst)
            if self.rooms.free_total <= 0 and not may_stop and self.has_reserved:
                break  # nothing is free, and nobody who comes later may stop anybody
            if self._is_within_quota(job):
                self._look_at(key, job, may_stop=may_stop)
            elif may_stop and not self.queue.project(job.project).held:
                self._make_quota(key, job)
        return self.decisions

    def _find_worst(self) -> None:
        self.worst = max((each.key for each in self.able), default=None)

    def _is_within_quota(self, job: Waiting) -> bool:
        project = self.queue.project(job.project)
        if project.held:
            return False
        devices = self.devices.get(job.project, 0) + job.parts * job.slots
        return (project.max_devices is None or devices <= project.max_devices) and (
            project.max_jobs is None or self.jobs.get(job.project, 0) < project.max_jobs
        )

    def _make_quota(self, key: Key, job: Waiting) -> None:
        """Stops jobs of the same project that this one goes before, where its quota is all that keeps it waiting."""
        project, asked = self.queue.project(job.project), job.parts * job.slots
        if (job.project, asked) in self.too_full:
            return
        gone = [each for each in self.queue.running if each.project == job.project and each.is_leaving]
        devices = self.devices.get(job.project, 0) + asked - sum(each.devices for each in gone)
        jobs = self.jobs.get(job.project, 0) + 1 - len(gone)
        stopped: list[Candidate] = []
        for each in victims.of_project(job.project, key, self.able):
            if _holds(project.max_devices, devices) and _holds(project.max_jobs, jobs):
                break
            stopped.append(each)
            devices, jobs = devices - each.job.devices, jobs - 1
        if stopped and _holds(project.max_devices, devices) and _holds(project.max_jobs, jobs):
            self._give_way(job, key, stopped)
        else:
            self.too_full.add((job.project, asked))

    def _look_at(self, key: Key, job: Waiting, *, may_stop: bool) -> None:
        demand = (
            job.parts, job.slots, job.cpu_millis, job.host_bytes, job.peak_bytes, job.beside_bytes, job.is_on_cpu,
            job.nodes,
        )  # fmt: skip
        if demand not in self.too_large:
            if (parts := self.rooms.fit(job)) is not None:
                self._begin(job, key, parts)
                return
            self.too_large.add(demand)
        if demand not in self.too_large_later:
            if (parts := self.rooms.fit_when_left(job)) is not None:
                self._keep(job, parts, "Jobs that were asked to stop will have left them soon.")
                return
            self.too_large_later.add(demand)
        if may_stop and (demand, job.project) not in self.too_weak:
            if (found := victims.choose(job, key, self.able, self.rooms)) is not None:
                self._stop(job, key, *found)
                return
            self.too_weak.add((demand, job.project))
        if not self.has_reserved and demand not in self.impossible:
            self._reserve(job, demand)

    def _begin(self, job: Waiting, key: Key, parts: Parts) -> None:
        why = _why(job, key, self.queue) + ", ".join(self.rooms.words(node) for node, _ in parts)
        if job.prefers is not None and parts[0][0] == job.prefers:
            why += " and its newest checkpoint"
        self.rooms.take(job, parts)
        self._count(job)
        self.decisions.append(Begin(job=job.job, parts=parts, why=why + "."))

    def _stop(self, job: Waiting, key: Key, stopped: list[Candidate], parts: Parts) -> None:
        self._give_way(job, key, stopped)
        self._keep(job, parts, "Jobs are asked to stop for it.")

    def _give_way(self, job: Waiting, key: Key, stopped: list[Candidate]) -> None:
        for each in stopped:
            self.able.remove(each)
            self.rooms.leave(each.job)
            self.decisions.append(
                GiveWay(job=each.job.job, to_job=job.job, loss_ms=each.job.loss_ms, why=_before(key, each.key))
            )
        self._find_worst()
        self.too_large_later.clear()

    def _keep(self, job: Waiting, parts: Parts, why: str) -> None:
        self.rooms.promise(job, parts)
        self._count(job)
        self.decisions.append(Keep(job=job.job, nodes=tuple(node for node, _ in parts), why=why))

    def _reserve(self, job: Waiting, demand: _Demand) -> None:
        nodes = tuple(self.rooms.alike(job, self.rooms.largest(job)))
        if not nodes:
            self.impossible.add(demand)
            return
        self.has_reserved = True
        waited_ms = self.queue.now_ms - job.queued_ms
        if waited_ms >= self.queue.rules.reserve_after_ms:
            self.rooms.close(nodes)
            why = f"It has waited {waited_ms // 60_000} min for {job.parts * job.slots} slots: they are kept for it."
            self.decisions.append(Keep(job=job.job, nodes=nodes, why=why))

    def _count(self, job: Waiting) -> None:
        self.devices[job.project] = self.devices.get(job.project, 0) + job.parts * job.slots
        self.jobs[job.project] = self.jobs.get(job.project, 0) + 1


def _holds(limit: int | None, count: int) -> bool:
    return limit is None or count <= limit


CLASSES = {-1: "LOW", 0: "NORMAL", 1: "HIGH"}
"""What classes are called."""


def _why(job: Waiting, key: Key, queue: Queue) -> str:
    waited_s = (queue.now_ms - job.queued_ms) // 1000
    of_class = CLASSES.get(job.priority, str(job.priority))
    near = ", its deadline is near" if key[3] < inf else ""
    return f"Next in order (class {of_class}, level {key[2]}{near}) after {waited_s} s: "


_CAUSES = ("a higher class", "a project below its share", "less work so far")


def _before(waiting: Key, running: Key) -> str:
    cause = next(name for name, one, other in zip(_CAUSES, waiting, running, strict=False) if one != other)
    return f"It gives way to a job with {cause}."
