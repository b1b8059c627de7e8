"""What would become of a job that is not created, and what it would do to the others. Pure.

The planner is run forward twice, without the job and with it; the difference is what it costs the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from services.scheduler.decisions import waited_for
from services.scheduler.foresight import blockers
from services.scheduler.foresight.blockers import Blocker
from services.scheduler.foresight.explaining import Told, View, dependency, not_yet, told
from services.scheduler.foresight.forecast import Outlooks, foresee, ordered
from services.scheduler.foresight.moment import Moment, moment_of
from services.scheduler.foresight.nodes_said import Finding, findings
from services.scheduler.foresight.places import Place, place_of
from services.scheduler.foresight.promises import Event, Quality
from services.scheduler.foresight.run_times import RunTime
from services.scheduler.jobs import JobState
from services.scheduler.planning.plan import plan
from services.scheduler.records import ActiveJob, NewJob
from services.scheduler.wire import predicted_ms, scheduling_values

LEAST_DELAY_MS = 1_000
"""Smaller delays are not told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """A job whose end is put off."""

    job: int
    before_ms: int
    after_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """The answer."""

    told: Told
    raw: Outlooks
    """Before any correction."""
    nodes: tuple[str, ...]
    displaced: tuple[tuple[int, float], ...]
    """Running jobs that would be stopped, and the device-milliseconds that this costs."""
    delayed: tuple[Delay, ...]
    blockers: tuple[Blocker, ...]
    place: Place | None
    findings: tuple[Finding, ...]


def with_job(moment: Moment, new: ActiveJob, time: RunTime) -> Moment:
    """Returns the moment as it would be with one job more."""
    others = [moment.jobs[number] for number in waited_for(new) if number in moment.jobs]
    known = {job.number: (str(job.name), job.state) for job in others}
    dependencies = {**moment.seen.dependencies, **known}
    seen = replace(moment.seen, jobs=(*moment.seen.jobs, new), dependencies=dependencies)
    return moment_of(seen, {**moment.times, new.number: time})


def as_stored(new: NewJob, number: int, now_ms: int, moment: Moment) -> ActiveJob:
    """Returns an admitted job as the loop would see it once it is stored.

    Args:
        new: The job.
        number: One that no other job has.
        now_ms: When it would be created.
        moment: Where the job that it depends on is looked up.
    """
    asked = scheduling_values(new.scheduling)
    waits_for = next((job.number for job in moment.jobs.values() if job.name == new.depends_on), None)
    return ActiveJob(
        number=number,
        name=new.name,
        state=JobState.BLOCKED if new.pinned is None or new.waits_for else JobState.QUEUED,
        token=0,
        depends_on=waits_for,
        waits_for=tuple(new.waits_for),
        not_before_ms=0,
        lost_after_ms=new.lost_after_ms,
        needs=new.needs,
        checkpoint_node=None,
        create_ms=now_ms,
        budget=new.budget,
        priority=asked["priority"],
        is_preemptible=asked["is_preemptible"],
        start_after_ms=asked["start_after_ms"] or 0,
        deadline_ms=asked["deadline_ms"],
        predicted_ms=predicted_ms(new.resource_estimate),
        queued_ms=now_ms,
    )


def simulate(new: ActiveJob, time: RunTime, before: View, qualities: Mapping[Event, Quality]) -> Simulated:
    """Returns what would become of a job.

    Args:
        new: The job as it would be stored; its number is that of no other.
        time: What it would need.
        before: The moment without it; its outlooks are of all jobs.
        qualities: What earlier promises were worth.
    """
    moment = with_job(before.moment, new, time)
    after = foresee(moment.situation, moment.times, pace=moment.pace)
    outlook = after.of(new.number)
    decisions, order = plan(moment.queue), ordered(moment.queue)
    waiting = next((each for each in moment.queue.waiting if each.job == new.number), None)
    said = tuple(findings(new.needs, waiting, moment.queue, moment.seen.nodes))
    costs = {job.job: job.loss_ms for job in moment.queue.running}
    displaced = [
        (number, costs[number])
        for number, each in after.by_job.items()
        if new.number in each.stopped_for and number in costs
    ]
    if waiting is not None:
        found = blockers.of_waiting(waiting, moment, decisions, said)
    else:
        found = (dependency(new, moment) if new.state is JobState.BLOCKED else not_yet(new, moment.queue.now_ms),)
    return Simulated(
        told=told(outlook, time, after, qualities),
        raw=after,
        nodes=outlook.nodes,
        displaced=tuple(displaced),
        delayed=tuple(_delays(new.number, before.outlooks, after)),
        blockers=found,
        place=None if waiting is None else place_of(waiting, order, moment.queue),
        findings=said,
    )


def _delays(new: int, before: Outlooks, after: Outlooks) -> list[Delay]:
    """Returns the jobs that end later, the longest delay first."""
    found = []
    for number, outlook in after.by_job.items():
        was = before.of(number)
        if number == new or was.end is None or outlook.end is None:
            continue
        if outlook.end.expected_ms - was.end.expected_ms >= LEAST_DELAY_MS:
            found.append(Delay(job=number, before_ms=was.end.expected_ms, after_ms=outlook.end.expected_ms))
    return sorted(found, key=lambda each: (each.before_ms - each.after_ms, each.job))
