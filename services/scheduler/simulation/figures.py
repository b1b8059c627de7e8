"""What a simulation amounts to: completion times, waits, slowdowns, fairness, and what stops cost."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from services.scheduler.simulation.clock import Course

HOUR_MS = 3_600_000
LARGE = 8
"""Devices from which on a job counts as a large one."""
_SHORT_MS = 600_000
"""Shorter run times count as this in slowdowns, so that a job of seconds does not decide the mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one policy on one workload. Hours, unless said otherwise."""

    jobs: int
    mean_completion_h: float
    """From submit to end."""
    median_completion_h: float
    mean_wait_h: float
    """From submit to the first start."""
    p99_wait_large_h: float
    """Of jobs with `LARGE` devices or more; 0 when there are none."""
    mean_slowdown: float
    """Completion over run time, bounded below by 1; run times under 10 minutes count as 10 minutes."""
    worst_project_slowdown: float
    """The same, of the project that fares worst."""
    stops: int
    """How often a running job was stopped for another one."""
    overhead: float
    """Device time spent on stops and restores, over all device time."""


def figures(courses: Collection[Course]) -> Figures:
    """Returns the figures of jobs that have all ended, at least one."""
    ended = [(course, course.end_ms, course.start_ms) for course in courses]
    completions: list[float] = []
    waits: list[float] = []
    large: list[float] = []
    slowdowns: dict[str, list[float]] = {}
    for course, end_ms, start_ms in ended:
        if end_ms is None or start_ms is None:
            raise ValueError(f"job {course.job.number} has not ended")
        completions.append((end_ms - course.job.submit_ms) / HOUR_MS)
        waits.append((start_ms - course.job.submit_ms) / HOUR_MS)
        if course.job.devices >= LARGE:
            large.append(waits[-1])
        slowdown = max(1.0, (end_ms - course.job.submit_ms) / max(_SHORT_MS, course.job.run_ms))
        slowdowns.setdefault(course.job.project, []).append(slowdown)
    held = sum(course.held_ms for course in courses)
    needed = sum(course.job.devices * course.job.run_ms for course in courses)
    return Figures(
        jobs=len(ended),
        mean_completion_h=statistics.mean(completions),
        median_completion_h=statistics.median(completions),
        mean_wait_h=statistics.mean(waits),
        p99_wait_large_h=_quantile(sorted(large), 0.99) if large else 0.0,
        mean_slowdown=statistics.mean(each for project in slowdowns.values() for each in project),
        worst_project_slowdown=max(statistics.mean(project) for project in slowdowns.values()),
        stops=sum(course.stops for course in courses),
        overhead=1.0 - needed / held,
    )


def unfairness(given_ms: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Returns by how much the project that is farthest from its share misses it: 0.1 is a tenth of the share."""
    given, weight = sum(given_ms[name] for name in weights), sum(weights.values())
    return max(abs(given_ms[name] / given / (share / weight) - 1.0) for name, share in weights.items())


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
