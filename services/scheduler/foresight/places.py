"""Where a job stands in the order, and what the order is made of, in words. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.scheduler.planning.order import standings, waiting_key
from services.scheduler.planning.queue import Queue, Waiting

CLASSES = {-1: "LOW", 0: "NORMAL", 1: "HIGH"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a job stands in the order."""

    position: int
    """From 1."""
    waiting: int
    position_in_project: int
    waiting_in_project: int
    ahead: tuple[int, ...]
    """Jobs before it, in order."""
    priority: int
    is_over_share: bool
    level: int
    attained_ms: float
    usage_by_weight_ms: float
    words: str


def place_of(job: Waiting, order: Sequence[Waiting], queue: Queue) -> Place:
    """Returns where a job stands.

    Args:
        job: One that waits for a node.
        order: All that wait for one, in order.
        queue: The moment.
    """
    position = next(index for index, other in enumerate(order) if other.job == job.job)
    standing = standings(queue)[job.project]
    key = waiting_key(job, queue, standing)
    of_project = [other.job for other in order if other.project == job.project]
    ahead = tuple(other.job for other in order[:position])
    return Place(
        position=position + 1,
        waiting=len(order),
        position_in_project=of_project.index(job.job) + 1,
        waiting_in_project=len(of_project),
        ahead=ahead,
        priority=job.priority,
        is_over_share=bool(key[1]),
        level=int(key[2]),
        attained_ms=job.attained_ms,
        usage_by_weight_ms=standing.usage_by_weight,
        words=_words(job, queue, standing.over, position, level=int(key[2])),
    )


def _words(job: Waiting, queue: Queue, over: float, position: int, *, level: int) -> str:
    share = f"its project has had {over:.2f} times its share" if over else "its project has had nothing so far"
    is_over = " (others go first)" if over > queue.rules.share_slack else ""
    waited = duration((queue.now_ms - job.queued_ms) / 1000)
    return (
        f"Number {position + 1} in the order: class {CLASSES.get(job.priority, str(job.priority))}, {share}{is_over}, "
        f"level {level} with {duration(job.attained_ms / 1000)} of device time so far, waiting for {waited}."
    )


def duration(seconds: float) -> str:
    """Returns a time as a person reads it: `8 s`, `12 min`, `3.5 h`, `2.1 d`."""
    seconds = max(0.0, seconds)
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"
