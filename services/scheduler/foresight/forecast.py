"""When jobs start and end, as intervals: the planner run forward with short, expected and long run times. Pure.

Only the first jobs of the order take part in the runs, so that an answer comes in time whatever the queue is; the turn
of a later one is computed from the work before it and the slots there are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from services.scheduler.foresight.forward import Course, Forward, Pace, Situation
from services.scheduler.foresight.promises import Span
from services.scheduler.foresight.run_times import RunTime
from services.scheduler.planning.order import standings, waiting_key
from services.scheduler.planning.queue import Queue, Waiting

LOOKED_AT = 200
"""Waiting jobs, the first of the order, that take part in the runs."""
VARIANTS = ("expected", "lowest", "highest")
_PACES = {"expected": 1.0, "lowest": 0.3, "highest": 2.0}
"""What stops and restores take in a variant, over what is expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is foreseen of one job."""

    start: Span | None = None
    """None: it has its nodes, or it cannot be foreseen."""
    end: Span | None = None
    nodes: tuple[str, ...] = ()
    """Where it is expected to start, or runs."""
    stopped_for: tuple[int, ...] = ()
    """Jobs that it is expected to give way to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlooks:
    """What is foreseen of all jobs, at one moment."""

    now_ms: int
    by_job: Mapping[int, Outlook] = field(default_factory=dict)
    order: tuple[int, ...] = ()
    """Numbers of the jobs that wait for a node, the next one first."""
    looked_at: int = 0
    """Of these, those that took part in the runs."""

    def of(self, job: int) -> Outlook:
        """Returns what is foreseen of a job."""
        return self.by_job.get(job, _NOTHING)


_NOTHING = Outlook()


def ordered(queue: Queue) -> list[Waiting]:
    """Returns the jobs that wait for a node in the planner's order."""
    by_project = standings(queue)
    return sorted(queue.waiting, key=lambda job: waiting_key(job, queue, by_project[job.project]))


def foresee(
    situation: Situation,
    times: Mapping[int, RunTime],
    *,
    wanted: Collection[int] | None = None,
    pace: Pace | None = None,
    looked_at: int = LOOKED_AT,
) -> Outlooks:
    """Returns what is foreseen.

    Args:
        situation: Where the runs begin; its `left_ms` is not read.
        times: What each job still needs.
        wanted: Jobs of interest: runs end with them; None: all.
        pace: How long other things take.
        looked_at: Waiting jobs that take part.
    """
    order = ordered(situation.queue)
    taken = order[:looked_at]
    front = replace(situation, queue=replace(situation.queue, waiting=tuple(taken)))
    inside = None if wanted is None else set(wanted) - {job.job for job in order[looked_at:]}
    runs: dict[str, Mapping[int, Course]] = {}
    for variant in VARIANTS:
        left = {number: time.at(variant) for number, time in times.items()}
        run = Forward(replace(front, left_ms=left), _paced(pace or Pace(), _PACES[variant]))
        runs[variant] = run.run(inside) if inside is None or inside else {}
    held = {job.job for job in situation.queue.running}
    outlooks = {number: _outlook(number, runs, is_held=number in held) for number in runs["expected"]}
    late = order[len(taken) :]
    if late or any(outlooks[job.job].start is None for job in taken if job.job in outlooks):
        missing = {job.job for job in late} | {number for number, each in outlooks.items() if each.start is None}
        for number, outlook in _by_rate(situation.queue, order, times, missing - held).items():
            outlooks[number] = replace(outlook, nodes=outlooks.get(number, _NOTHING).nodes)
    return Outlooks(
        now_ms=situation.queue.now_ms,
        by_job=outlooks,
        order=tuple(job.job for job in order),
        looked_at=len(taken),
    )


def _paced(pace: Pace, factor: float) -> Pace:
    return replace(pace, stop_ms=round(pace.stop_ms * factor), restore_ms=round(pace.restore_ms * factor))


def _outlook(number: int, runs: Mapping[str, Mapping[int, Course]], *, is_held: bool) -> Outlook:
    courses = [runs[variant].get(number, Course()) for variant in VARIANTS]
    expected = courses[0]
    return Outlook(
        start=None if is_held else _span([course.start_ms for course in courses]),
        end=_span([course.end_ms for course in courses]),
        nodes=expected.nodes,
        stopped_for=tuple(dict.fromkeys(expected.stops)),
    )


def _span(moments: Sequence[int | None]) -> Span | None:
    """Returns the interval of a moment in the three runs; None when it does not come in one of them."""
    known = [each for each in moments if each is not None]
    if len(known) < len(moments):
        return None
    return Span(expected_ms=known[0], earliest_ms=min(known), latest_ms=max(known))


def _by_rate(
    queue: Queue, order: Sequence[Waiting], times: Mapping[int, RunTime], missing: Collection[int]
) -> dict[int, Outlook]:
    """Returns the turns of jobs by the work before them: all slots are busy until then."""
    slots = {room.node: room.slots for room in queue.rooms}
    total = sum(slots.values())
    if not total or not missing:
        return {}
    moments: dict[int, list[tuple[int, int]]] = {}
    # Who can never start takes no slot from those behind it.
    able = [job for job in order if job.job in times and not queue.project(job.project).held and _has_nodes(job, slots)]
    for variant in VARIANTS:
        work = sum(times[job.job].at(variant) * job.devices for job in queue.running if job.job in times)
        for job in able:
            run_ms = times[job.job].at(variant)
            if job.job in missing:
                start_ms = queue.now_ms + round(work / total)
                moments.setdefault(job.job, []).append((start_ms, start_ms + round(run_ms)))
            work += run_ms * job.parts * job.slots
    return {
        number: Outlook(start=_span([start for start, _ in each]), end=_span([end for _, end in each]))
        for number, each in moments.items()
    }


def _has_nodes(job: Waiting, slots: Mapping[str, int]) -> bool:
    if job.nodes is None and job.parts == 1:
        return any(count >= job.slots for count in slots.values())
    able = sum(count >= job.slots and (job.nodes is None or node in job.nodes) for node, count in slots.items())
    return able >= job.parts
