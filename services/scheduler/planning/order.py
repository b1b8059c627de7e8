"""In which order jobs get devices, and which running ones a waiting one goes before.

The key of a job: class of priority; whether its project is above its share; level of attained work (two-dimensional
least attained service: devices times time, as in Tiresias, NSDI 2019); latest start where a deadline is near; usage of
its project over its weight; age. Work that was given is known exactly and run times need not be: no user is asked for
an estimate. A deadline that is near makes a job one that has not run yet: it goes first in its class, and takes nothing
from the share of other projects.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from heapq import merge
from math import inf
from operator import attrgetter, itemgetter

from services.scheduler.planning.queue import Queue, Running, Waiting

Key = tuple[int, bool, int, float, float, int, int]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a project stands beside the others at one moment."""

    usage_by_weight: float
    """Work it was given over its weight."""
    over: float
    """Its part of all work over the part that its weight gives it; 1 is exactly its share."""


def standings(queue: Queue) -> Mapping[str, Standing]:
    """Returns how the projects with jobs stand. Those without jobs leave their share to the others."""
    names = {job.project for job in queue.waiting} | {job.project for job in queue.running}
    projects = {name: queue.project(name) for name in names}
    weights = sum(project.weight for project in projects.values())
    usage = sum(project.usage_ms for project in projects.values())
    return {
        name: Standing(
            usage_by_weight=project.usage_ms / project.weight,
            over=(project.usage_ms / usage) / (project.weight / weights) if usage else 0.0,
        )
        for name, project in projects.items()
    }


def in_order(queue: Queue, by_project: Mapping[str, Standing]) -> Iterator[tuple[Key, Waiting]]:
    """Yields the jobs that wait by their keys, with these.

    A plan mostly looks at a few of ten thousand. Those of one class and project that have hardly run and have no
    deadline differ in age alone, so that their keys are made as they are asked for.
    """
    first_level_ms = next(iter(queue.rules.level_ends_ms), inf)
    alike: dict[tuple[int, str], list[Waiting]] = {}
    others: list[tuple[Key, Waiting]] = []
    for job in queue.waiting:
        if job.urgent_ms is None and job.attained_ms < first_level_ms:
            alike.setdefault((job.priority, job.project), []).append(job)
        else:
            others.append((waiting_key(job, queue, by_project[job.project]), job))
    others.sort(key=itemgetter(0))
    aged = (
        ((waiting_key(job, queue, by_project[job.project]), job) for job in sorted(jobs, key=_AGE))
        for jobs in alike.values()
    )
    return merge(others, *aged, key=itemgetter(0))


_AGE = attrgetter("submit_ms", "job")


def waiting_key(job: Waiting, queue: Queue, standing: Standing) -> Key:
    """Returns the key of a job that waits; the smallest goes first."""
    rules = queue.rules
    has_starved = queue.now_ms - job.queued_ms >= rules.promote_after_ms
    latest = latest_start(job, queue.now_ms)
    level = 0 if has_starved or latest < inf else bisect_right(rules.level_ends_ms, job.attained_ms)
    is_over = standing.over > rules.share_slack
    return (-job.priority, is_over, level, latest, standing.usage_by_weight, job.submit_ms, job.job)


def running_key(job: Running, queue: Queue, standing: Standing) -> Key:
    """Returns the key of a job that runs: a little better than if it waited, so that none is stopped for a trifle."""
    rules = queue.rules
    latest = latest_start(job, queue.now_ms)
    level = 0 if latest < inf else bisect_right(rules.level_ends_ms, job.attained_ms * rules.stickiness)
    is_over = standing.over * rules.stickiness > rules.share_slack
    return (-job.priority, is_over, level, latest, standing.usage_by_weight, job.submit_ms, job.job)


def latest_start(job: Waiting | Running, now_ms: int) -> float:
    """Returns when a job whose deadline is near must start at the latest; infinity for every other job."""
    if job.urgent_ms is None or now_ms < job.urgent_ms or job.latest_start_ms is None:
        return inf
    return job.latest_start_ms


def goes_before(waiting: Key, running: Key) -> bool:
    """Returns whether a running job may be stopped for a waiting one: for its class, share or level, never for age."""
    return waiting[:3] < running[:3]
