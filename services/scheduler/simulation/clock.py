"""A cluster under a virtual clock: jobs come, start, are stopped and end, as a policy says. Same input, same result."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from services.scheduler.planning.plan import Begin, Decision, GiveWay
from services.scheduler.planning.queue import Project, Queue, Room, Rules, Running, Waiting
from services.scheduler.planning.rooms import Parts
from services.scheduler.planning.shares import decayed, given
from services.scheduler.simulation.workload import SimulatedJob

Policy = Callable[[Queue], list[Decision]]

_ARRIVES, _ENDS, _LEAVES, _LOOK = range(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What the jobs run on, and what stopping one costs."""

    nodes: int = 1
    """Nodes of equal size."""
    devices_per_node: int
    """Devices of each."""
    weights: dict[str, float] = field(default_factory=dict)
    """Weight of each project; 1 where none is given."""
    stop_ms: int = 15_000
    """How long a job that was asked to stop takes to save its state and leave."""
    restore_ms: int = 60_000
    """How long it holds its devices again before it goes on."""
    look_every_ms: int = 60_000
    """How often the policy is asked while jobs wait and nothing happens."""


@dataclass(slots=True, kw_only=True)
class Course:
    """How one job went; times as in its workload."""

    job: SimulatedJob
    left_ms: float
    """Work that is left, in milliseconds on all of its devices."""
    start_ms: int | None = None
    """First start."""
    end_ms: int | None = None
    stops: int = 0
    held_ms: float = 0.0
    """Device-milliseconds that it held, restores included."""


@dataclass(slots=True)
class _Attempt:
    course: Course
    parts: Parts
    start_ms: int
    restore_ms: int
    number: int
    is_leaving: bool = False


@dataclass(slots=True)
class Simulation:
    """One run of a workload under a policy."""

    jobs: Sequence[SimulatedJob]
    cluster: Cluster
    policy: Policy
    rules: Rules = field(default_factory=Rules)
    now_ms: int = 0
    decisions: int = 0
    """How often the policy was asked."""
    courses: dict[int, Course] = field(default_factory=dict)
    given_ms: dict[str, float] = field(default_factory=dict)
    """Device-milliseconds that each project held, undecayed."""
    _waiting: dict[int, tuple[Course, int]] = field(default_factory=dict)
    _running: dict[int, _Attempt] = field(default_factory=dict)
    _free: list[int] = field(default_factory=list)
    _usage: dict[str, tuple[float, int]] = field(default_factory=dict)
    _events: list[tuple[int, int, int, int]] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _next_look_ms: int = -1

    def run(self, until_ms: int | None = None) -> dict[int, Course]:
        """Runs to the end of the last job, or to a moment, and returns how each job went."""
        self._free = [self.cluster.devices_per_node] * self.cluster.nodes
        for job in self.jobs:
            self.courses[job.number] = Course(job=job, left_ms=job.run_ms)
            heapq.heappush(self._events, (job.submit_ms, _ARRIVES, job.number, 0))
        while self._events and (until_ms is None or self._events[0][0] <= until_ms):
            self.now_ms = self._events[0][0]
            while self._events and self._events[0][0] == self.now_ms:
                _, kind, about, number = heapq.heappop(self._events)
                self._happen(kind, about, number)
            if self._waiting:
                self._decide()
        for attempt in self._running.values():
            self._count(attempt)
        return self.courses

    def _happen(self, kind: int, job: int, number: int) -> None:
        if kind == _ARRIVES:
            self._waiting[job] = (self.courses[job], self.now_ms)
            return
        attempt = self._running.get(job)
        if kind == _LOOK or attempt is None or attempt.number != number:
            return  # it has ended or left before
        self._count(attempt)
        for node, count in attempt.parts:
            self._free[int(node)] += count
        del self._running[job]
        course = attempt.course
        course.left_ms -= max(0, self.now_ms - attempt.start_ms - attempt.restore_ms)
        if course.left_ms <= 0:
            course.end_ms = self.now_ms
        else:
            course.stops += 1
            self._waiting[job] = (course, self.now_ms)

    def _count(self, attempt: _Attempt) -> None:
        """Counts what an attempt held up to now."""
        course, devices = attempt.course, sum(count for _, count in attempt.parts)
        project = course.job.project
        held = devices * (self.now_ms - attempt.start_ms)
        course.held_ms += held
        self.given_ms[project] = self.given_ms.get(project, 0.0) + held
        usage, since = self._usage.get(project, (0.0, self.now_ms))
        usage = decayed(usage, self.now_ms - since) + given(devices, attempt.start_ms, self.now_ms, self.now_ms)
        self._usage[project] = (usage, self.now_ms)

    def _decide(self) -> None:
        self.decisions += 1
        for decision in self.policy(self._queue()):
            match decision:
                case Begin(job=job, parts=parts):
                    self._begin(job, parts)
                case GiveWay(job=job):
                    attempt = self._running[job]
                    attempt.is_leaving = True
                    heapq.heappush(self._events, (self.now_ms + self.cluster.stop_ms, _LEAVES, job, attempt.number))
        if self._waiting and self._next_look_ms <= self.now_ms:
            self._next_look_ms = self.now_ms + self.cluster.look_every_ms
            heapq.heappush(self._events, (self._next_look_ms, _LOOK, -1, 0))

    def _begin(self, job: int, parts: Parts) -> None:
        course, _ = self._waiting.pop(job)
        restore_ms = self.cluster.restore_ms if course.start_ms is not None else 0
        if course.start_ms is None:
            course.start_ms = self.now_ms
        for node, count in parts:
            self._free[int(node)] -= count
            if self._free[int(node)] < 0:
                raise AssertionError(f"node {node} was given away twice")
        number = next(self._numbers)
        self._running[job] = _Attempt(course, parts, self.now_ms, restore_ms, number)
        end_ms = self.now_ms + restore_ms + math.ceil(course.left_ms)
        heapq.heappush(self._events, (end_ms, _ENDS, job, number))

    def _queue(self) -> Queue:
        size = self.cluster.devices_per_node
        running = tuple(self._seen(job, attempt) for job, attempt in self._running.items())
        return Queue(
            now_ms=self.now_ms,
            waiting=tuple(self._waits(job, course, since) for job, (course, since) in self._waiting.items()),
            running=running,
            rooms=tuple(Room(node=str(node), slots=size, free=free) for node, free in enumerate(self._free)),
            projects=self._projects(),
            rules=self.rules,
        )

    def _waits(self, job: int, course: Course, since_ms: int) -> Waiting:
        size, devices = self.cluster.devices_per_node, course.job.devices
        return Waiting(
            job=job,
            project=course.job.project,
            submit_ms=course.job.submit_ms,
            queued_ms=since_ms,
            attained_ms=course.held_ms,
            parts=math.ceil(devices / size),
            slots=min(devices, size),
        )

    def _seen(self, job: int, attempt: _Attempt) -> Running:
        course, devices = attempt.course, sum(count for _, count in attempt.parts)
        return Running(
            job=job,
            project=course.job.project,
            submit_ms=course.job.submit_ms,
            start_ms=attempt.start_ms,
            attained_ms=course.held_ms + devices * (self.now_ms - attempt.start_ms),
            held=dict(attempt.parts),
            loss_ms=devices * (self.cluster.stop_ms + self.cluster.restore_ms),
            is_leaving=attempt.is_leaving,
        )

    def _projects(self) -> dict[str, Project]:
        usage = {name: decayed(work, self.now_ms - since) for name, (work, since) in self._usage.items()}
        for attempt in self._running.values():
            devices = sum(count for _, count in attempt.parts)
            project = attempt.course.job.project
            usage[project] = usage.get(project, 0.0) + given(devices, attempt.start_ms, self.now_ms, self.now_ms)
        names = {*usage, *self.cluster.weights}
        return {
            name: Project(weight=self.cluster.weights.get(name, 1.0), usage_ms=usage.get(name, 0.0)) for name in names
        }
