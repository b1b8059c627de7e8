"""The planner run forward from this moment, under a virtual clock: who would start when and where, and who gives way.

It begins from any queue: unlike nodes, running jobs with what is left of them, jobs that come later. Nothing new comes
in meanwhile. Same input, same result. The planner is the scheduler's own (`planning.plan`), so where run times are
exact the run is what will happen.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from services.scheduler.planning.plan import Begin, Decision, GiveWay, plan
from services.scheduler.planning.queue import HOUR_MS, Project, Queue, Room, Running, Waiting
from services.scheduler.planning.rooms import Parts, Rooms
from services.scheduler.planning.shares import decayed, given

_ARRIVES, _ENDS, _LEAVES, _LOOK = range(4)
_STILL_MS = 24 * HOUR_MS
"""Longer than the planner's rules let anybody wait for a change of the order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long things take that are not training, and how far a run looks."""

    stop_ms: int = 15_000
    """From the wish that a job leaves until its devices are free."""
    restore_ms: int = 60_000
    """How long a job that was stopped holds its devices again before it goes on."""
    look_every_ms: int = 60_000
    """First pause after which the planner is asked although nothing happened."""
    look_growth: float = 2.0
    """Each further pause is so much longer, until something happens: a run over days stays short."""
    look_at_most_ms: int = HOUR_MS
    horizon_ms: int = 90 * 24 * HOUR_MS
    """The run ends after this time."""
    effort: int = 100_000
    """The run ends after the planner has looked at so many jobs, over all its looks."""
    exact_effort: int = 30_000
    """Up to this effort the planner is asked at each event; later on its looks are `coarse`."""
    coarse: float = 0.03
    """Looks are then at least this share of the time since the beginning apart: a slot that is freed in ten hours is
    given away some minutes later, which is little beside the spread of run times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """A job that does not wait for a node yet."""

    waiting: Waiting
    at_ms: int | None = None
    """When it comes at the earliest; None: never."""
    after: frozenset[int] = frozenset()
    """Jobs that all have to end first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Where a run begins."""

    queue: Queue
    left_ms: Mapping[int, float]
    """Time that each job still needs on its devices, > 0; a job that is missing never ends."""
    later: tuple[Later, ...] = ()
    again: Mapping[int, Waiting] = field(default_factory=dict)
    """Running jobs as they wait once they were stopped; one that is missing waits for what it holds, anywhere."""
    fixed: frozenset[int] = frozenset()
    """Jobs that are never stopped for others once they run."""
    gone: frozenset[int] = frozenset()
    """Running jobs that leave and do not wait again: paused or cancelled ones."""


@dataclass(slots=True, kw_only=True)
class Course:
    """How one job went in the run; None: not before its end."""

    start_ms: int | None = None
    """First start after the beginning of the run; the beginning for a job that ran then."""
    end_ms: int | None = None
    nodes: tuple[str, ...] = ()
    """Of that start, by rank."""
    stops: list[int] = field(default_factory=list)
    """Jobs that it was stopped for, in order."""


@dataclass(slots=True)
class _Attempt:
    waiting: Waiting
    held: Parts
    start_ms: int
    since_ms: int
    """From when on its work is counted here: its start, or the beginning of the run."""
    restore_ms: int
    loss_ms: float
    number: int
    is_preemptible: bool
    is_leaving: bool = False
    devices: int = field(init=False)
    seen: Running | None = None
    """As the planner saw it last."""
    seen_until_ms: float = 0.0
    """Until then nothing of it changes that the planner looks at."""

    def __post_init__(self) -> None:
        self.devices = sum(count for _, count in self.held)


@dataclass(slots=True)
class Forward:
    """One run."""

    situation: Situation
    pace: Pace = field(default_factory=Pace)
    policy: Callable[[Queue], list[Decision]] = plan
    now_ms: int = 0
    effort: int = 0
    """Jobs that the planner has looked at."""
    courses: dict[int, Course] = field(default_factory=dict)
    _waiting: dict[int, Waiting] = field(default_factory=dict)
    _running: dict[int, _Attempt] = field(default_factory=dict)
    _left: dict[int, float] = field(default_factory=dict)
    _rooms: dict[str, Room] = field(default_factory=dict)
    _sizes: Rooms = field(default_factory=lambda: Rooms(()))
    """Tells what a job takes of a node."""
    _usage: dict[str, tuple[float, int]] = field(default_factory=dict)
    _events: list[tuple[int, int, int, int]] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _later: dict[int, Later] = field(default_factory=dict)
    _followers: dict[int, list[int]] = field(default_factory=dict)
    _look: tuple[int, float] = (-1, 0.0)
    """When the next look is due, and the pause after it."""
    _moved_ms: int = 0
    """When something happened or was decided last."""
    _next_ms: int = 0
    """Before this the planner is not asked again."""

    def run(self, wanted: Iterable[int] | None = None) -> dict[int, Course]:
        """Runs until the wanted jobs have ended, or all that can, and returns how each job went.

        Args:
            wanted: Jobs of interest; None: all.
        """
        self._begin_run()
        open_ones = None if wanted is None else set(wanted)
        last_ms = self.now_ms + self.pace.horizon_ms
        while self.effort < self.pace.effort and (open_ones is None or open_ones):
            if self._waiting and self.now_ms >= self._next_ms:
                self._decide()
            if not self._events or self._events[0][0] > last_ms or self._is_still():
                break
            self.now_ms = self._events[0][0]
            while self._events and self._events[0][0] == self.now_ms:
                _, kind, job, number = heapq.heappop(self._events)
                self._happen(kind, job, number)
                if open_ones and self.courses[job].end_ms is not None:
                    open_ones.discard(job)
        return self.courses

    def _is_still(self) -> bool:
        """Returns whether nothing is to come but looks, which have found nothing for longer than any rule waits."""
        return self.now_ms - self._moved_ms > _STILL_MS and all(event[1] == _LOOK for event in self._events)

    def _begin_run(self) -> None:
        queue = self.situation.queue
        self.now_ms = self._moved_ms = queue.now_ms
        self._left = dict(self.situation.left_ms)
        self._rooms = {room.node: room for room in queue.rooms}
        self._sizes = Rooms(queue.rooms)
        self._usage = {name: (project.usage_ms, self.now_ms) for name, project in queue.projects.items()}
        self._waiting = {job.job: job for job in queue.waiting}
        for job in queue.waiting:
            self.courses[job.job] = Course()
        for running in queue.running:
            self._take_over(running)
        for each in self.situation.later:
            number = each.waiting.job
            self.courses[number] = Course()
            self._later[number] = each
            for other in each.after:
                self._followers.setdefault(other, []).append(number)
            self._push_arrival(each)

    def _push_arrival(self, later: Later) -> None:
        if later.at_ms is not None and not later.after:
            heapq.heappush(self._events, (max(later.at_ms, self.now_ms), _ARRIVES, later.waiting.job, 0))

    def _take_over(self, job: Running) -> None:
        """Takes over a job that runs already."""
        attempt = _Attempt(
            replace(self.situation.again.get(job.job, _waits_again(job)), attained_ms=job.attained_ms),
            tuple(job.held.items()),
            job.start_ms,
            self.now_ms,
            0,
            job.loss_ms,
            next(self._numbers),
            job.is_preemptible,
            job.is_leaving,
        )
        self._running[job.job] = attempt
        self.courses[job.job] = Course(start_ms=self.now_ms, nodes=tuple(job.held))
        self._push_end(attempt)
        if job.is_leaving:
            heapq.heappush(self._events, (self.now_ms + self.pace.stop_ms, _LEAVES, job.job, attempt.number))

    def _push_end(self, attempt: _Attempt) -> None:
        job = attempt.waiting.job
        if (left_ms := self._left.get(job)) is not None and math.isfinite(left_ms):
            end_ms = attempt.since_ms + attempt.restore_ms + max(1, math.ceil(left_ms))
            heapq.heappush(self._events, (end_ms, _ENDS, job, attempt.number))

    def _happen(self, kind: int, job: int, number: int) -> None:
        if kind == _LOOK:
            return
        self._moved_ms = self.now_ms
        if kind == _ARRIVES:
            self._waiting[job] = replace(self._later.pop(job).waiting, queued_ms=self.now_ms)
            return
        attempt = self._running.get(job)
        if attempt is None or attempt.number != number:
            return  # it has ended or left before
        self._look = (-1, 0.0)
        self._count(attempt)
        del self._running[job]
        for node, _ in attempt.held:
            self._take(attempt.waiting, node, sign=-1)
        worked_ms = max(0, self.now_ms - attempt.since_ms - attempt.restore_ms)
        if job in self._left:
            self._left[job] -= worked_ms
        if kind == _ENDS:
            self.courses[job].end_ms = self.now_ms
            for follower in self._followers.pop(job, ()):
                later = self._later[follower]
                self._later[follower] = replace(later, after=later.after - {job})
                self._push_arrival(self._later[follower])
        elif job not in self.situation.gone:
            attained_ms = attempt.waiting.attained_ms + attempt.devices * (self.now_ms - attempt.since_ms)
            self._waiting[job] = replace(attempt.waiting, queued_ms=self.now_ms, attained_ms=attained_ms)

    def _count(self, attempt: _Attempt) -> None:
        """Counts what an attempt held up to now for its project."""
        project = attempt.waiting.project
        usage, since = self._usage.get(project, (0.0, self.now_ms))
        usage = decayed(usage, self.now_ms - since)
        usage += given(attempt.devices, attempt.since_ms, self.now_ms, self.now_ms)
        self._usage[project] = (usage, self.now_ms)

    def _decide(self) -> None:
        self.effort += len(self._waiting) + len(self._running)
        for decision in self.policy(self._queue()):
            match decision:
                case Begin(job=job, parts=parts):
                    self._begin(job, parts)
                case GiveWay(job=job, to_job=to_job):
                    attempt = self._running[job]
                    attempt.is_leaving, attempt.seen = True, None
                    self.courses[job].stops.append(to_job)
                    heapq.heappush(self._events, (self.now_ms + self.pace.stop_ms, _LEAVES, job, attempt.number))
        coarse = self.pace.coarse if self.effort > self.pace.exact_effort else 0.0
        self._next_ms = self.now_ms + round(coarse * (self.now_ms - self.situation.queue.now_ms))
        if self._waiting and self._next_ms > self.now_ms:
            heapq.heappush(self._events, (self._next_ms, _LOOK, next(iter(self._waiting)), 0))
        at_ms, pause_ms = self._look
        if self._waiting and at_ms <= self.now_ms:
            pause_ms = min(max(pause_ms, self.pace.look_every_ms), self.pace.look_at_most_ms)
            self._look = (self.now_ms + round(pause_ms), pause_ms * self.pace.look_growth)
            about = next(iter(self._waiting))
            heapq.heappush(self._events, (self._look[0], _LOOK, about, 0))

    def _begin(self, job: int, parts: Parts) -> None:
        waiting = self._waiting.pop(job)
        course = self.courses[job]
        has_run = waiting.attained_ms > 0 or course.start_ms is not None
        restore_ms = self.pace.restore_ms if has_run else 0
        if course.start_ms is None:
            course.start_ms, course.nodes = self.now_ms, tuple(node for node, _ in parts)
        for node, _ in parts:
            self._take(waiting, node)
        devices = sum(count for _, count in parts)
        loss_ms = float(devices * (self.pace.stop_ms + self.pace.restore_ms))
        attempt = _Attempt(
            waiting,
            parts,
            self.now_ms,
            self.now_ms,
            restore_ms,
            loss_ms,
            next(self._numbers),
            job not in self.situation.fixed,
        )
        self._running[job] = attempt
        self._push_end(attempt)

    def _take(self, job: Waiting, node: str, *, sign: int = 1) -> None:
        """Takes what a job needs of a node, or gives it back; what is held on a node that takes no work is left out."""
        room = self._rooms.get(node)
        if room is None:
            return
        slots, cpu_millis, host_bytes = (sign * amount for amount in self._sizes.asked(job, node))
        room = replace(
            room,
            free=room.free - slots,
            free_cpu_millis=None if room.free_cpu_millis is None else room.free_cpu_millis - cpu_millis,
            free_bytes=None if room.free_bytes is None else room.free_bytes - host_bytes,
        )
        if sign > 0 and room.free < 0:
            raise AssertionError(f"nodes/{node} was given away twice")
        self._rooms[node] = room

    def _queue(self) -> Queue:
        return replace(
            self.situation.queue,
            now_ms=self.now_ms,
            waiting=tuple(self._waiting.values()),
            running=tuple(map(self._seen, self._running.values())),
            rooms=tuple(self._rooms.values()),
            projects=self._projects(),
        )

    def _seen(self, attempt: _Attempt) -> Running:
        """Returns a running job as the planner sees it; made anew only when its level of work may have changed."""
        if attempt.seen is not None and self.now_ms < attempt.seen_until_ms:
            return attempt.seen
        attempt.seen = self._made(attempt)
        rules, attained_ms = self.situation.queue.rules, attempt.seen.attained_ms
        ends = [end for end in rules.level_ends_ms if end > attained_ms * rules.stickiness]
        left_ms = (ends[0] / rules.stickiness - attained_ms) / max(1, attempt.devices) if ends else math.inf
        attempt.seen_until_ms = self.now_ms + left_ms
        return attempt.seen

    def _made(self, attempt: _Attempt) -> Running:
        waiting = attempt.waiting
        return Running(
            job=waiting.job,
            project=waiting.project,
            priority=waiting.priority,
            submit_ms=waiting.submit_ms,
            start_ms=attempt.start_ms,
            attained_ms=waiting.attained_ms + attempt.devices * (self.now_ms - attempt.since_ms),
            held=dict(attempt.held),
            loss_ms=attempt.loss_ms,
            cpu_millis=waiting.cpu_millis,
            host_bytes=waiting.host_bytes,
            peak_bytes=waiting.peak_bytes,
            beside_bytes=waiting.beside_bytes,
            urgent_ms=waiting.urgent_ms,
            latest_start_ms=waiting.latest_start_ms,
            is_preemptible=attempt.is_preemptible,
            is_leaving=attempt.is_leaving,
        )

    def _projects(self) -> dict[str, Project]:
        usage = {name: decayed(work, self.now_ms - since) for name, (work, since) in self._usage.items()}
        for attempt in self._running.values():
            project = attempt.waiting.project
            held_ms = given(attempt.devices, attempt.since_ms, self.now_ms, self.now_ms)
            usage[project] = usage.get(project, 0.0) + held_ms
        known = self.situation.queue
        return {name: replace(known.project(name), usage_ms=work) for name, work in usage.items()}


def _waits_again(job: Running) -> Waiting:
    """Returns a running job as it would wait after a stop."""
    counts = set(job.held.values())
    return Waiting(
        job=job.job,
        project=job.project,
        priority=job.priority,
        submit_ms=job.submit_ms,
        queued_ms=job.start_ms,
        attained_ms=job.attained_ms,
        parts=max(1, len(job.held)),
        slots=max(counts, default=1),
        prefers=next(iter(job.held), None),
        cpu_millis=job.cpu_millis,
        host_bytes=job.host_bytes,
        peak_bytes=job.peak_bytes,
        beside_bytes=job.beside_bytes,
        urgent_ms=job.urgent_ms,
        latest_start_ms=job.latest_start_ms,
    )
