"""One moment as explanations look at it: what the loop saw, the planner's queue of it, and what each job still needs.

Pure. The queue is the very one that the loop plans with; jobs that do not wait for a node yet are described as they
will wait then.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace

from services.scheduler.decisions import waited_for
from services.scheduler.foresight.forward import Later, Pace, Situation
from services.scheduler.foresight.run_times import RunTime
from services.scheduler.jobs import HELD, LIVE_ATTEMPT, JobState
from services.scheduler.observation import Observation
from services.scheduler.planning.observed import queue_of
from services.scheduler.planning.queue import Queue, Waiting
from services.scheduler.records import ActiveJob, Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What an explanation is made of."""

    seen: Observation
    queue: Queue
    jobs: Mapping[int, ActiveJob]
    """Jobs that have not ended, by number."""
    attempts: Mapping[int, Attempt]
    """First part of the attempt that each job has, by number."""
    times: Mapping[int, RunTime]
    """What each job still needs, by number."""
    situation: Situation
    """Where forward runs begin."""
    pace: Pace
    """How long stops and restores take, as far as it was measured."""

    def name(self, job: int) -> str:
        """Returns the name of a job that has not ended; empty: it is not known."""
        return str(self.jobs[job].name) if job in self.jobs else ""


def moment_of(seen: Observation, times: Mapping[int, RunTime]) -> Moment:
    """Returns the moment of an observation.

    Args:
        seen: What the loop saw.
        times: What each job still needs, by number.
    """
    queue = queue_of(seen)
    jobs = {job.number: job for job in seen.jobs}
    waiting = {job.job for job in queue.waiting}
    held = {job.job for job in queue.running}
    coming = _as_waiting(seen, [job for job in seen.jobs if job.number not in waiting and _comes(job, held)])
    later = tuple(_later(seen, jobs[number], each) for number, each in coming.items() if number not in held)
    return Moment(
        seen=seen,
        queue=queue,
        jobs=jobs,
        attempts=_attempts(seen, jobs),
        times=times,
        pace=_pace(seen),
        situation=Situation(
            queue=queue,
            left_ms={},
            later=later,
            again={number: each for number, each in coming.items() if number in held},
            fixed=frozenset(job.number for job in seen.jobs if not job.is_preemptible),
            gone=frozenset(number for number in held if jobs[number].state in {JobState.PAUSING, JobState.CANCELLING}),
        ),
    )


def _pace(seen: Observation) -> Pace:
    """Returns how long a job takes from its node to its first step: what the attempts that run took, in the middle."""
    took = [each.first_step_ms - each.create_ms for each in seen.attempts if each.first_step_ms is not None]
    return Pace(restore_ms=round(statistics.median(took)) if took else seen.rules.restore_ms)


def _comes(job: ActiveJob, held: set[int]) -> bool:
    """Returns whether a job that does not wait for a node will do so without anybody's word."""
    return job.number in held or job.state in {JobState.BLOCKED, JobState.QUEUED}


def unmet(job: ActiveJob, seen: Observation) -> tuple[int, ...]:
    """Returns the numbers of the jobs that a BLOCKED one still waits for."""
    return tuple(each for each in waited_for(job) if _state_of(each, seen) is not JobState.SUCCEEDED)


def _state_of(dependency: int, seen: Observation) -> JobState | None:
    return seen.dependencies[dependency][1] if dependency in seen.dependencies else None


def _later(seen: Observation, job: ActiveJob, waiting: Waiting) -> Later:
    at_ms = starts_at_ms(job)
    if job.state is JobState.BLOCKED:
        after = (each for each in unmet(job, seen) if _state_of(each, seen) is not JobState.PUBLISHING)
        return Later(waiting=waiting, at_ms=max(at_ms, seen.now_ms), after=frozenset(after))
    return Later(waiting=waiting, at_ms=at_ms if at_ms > seen.now_ms else None)


def starts_at_ms(job: ActiveJob) -> int:
    """Returns the moment before which a job gets no node; 0: there is none."""
    return max(job.not_before_ms, job.start_after_ms)


def _as_waiting(seen: Observation, some: list[ActiveJob]) -> dict[int, Waiting]:
    """Returns jobs as they would wait for a node."""
    if not some:
        return {}
    as_queued = tuple(replace(job, state=JobState.QUEUED, not_before_ms=0, start_after_ms=0) for job in some)
    queue = queue_of(replace(seen, jobs=as_queued, attempts=()))
    return {each.job: each for each in queue.waiting}


def _attempts(seen: Observation, jobs: Mapping[int, ActiveJob]) -> dict[int, Attempt]:
    found: dict[int, Attempt] = {}
    for attempt in seen.attempts:
        job = jobs.get(attempt.job)
        is_current = job is not None and job.state in HELD and job.token == attempt.token
        if is_current and attempt.state in LIVE_ATTEMPT and attempt.node_rank == 0:
            found[attempt.job] = attempt
    return found
