"""Policies that ours is measured against; each has the face of `planning.plan.plan`."""

from __future__ import annotations

from services.scheduler.planning.plan import Begin, Decision
from services.scheduler.planning.queue import Queue
from services.scheduler.planning.rooms import Rooms


def strict_fifo(queue: Queue) -> list[Decision]:
    """First come, first served: nobody overtakes a job that does not fit yet."""
    return _fifo(queue, may_overtake=False)


def best_effort_fifo(queue: Queue) -> list[Decision]:
    """First come, first served among those that fit: what Kueue does unless told otherwise."""
    return _fifo(queue, may_overtake=True)


def _fifo(queue: Queue, *, may_overtake: bool) -> list[Decision]:
    rooms = Rooms(queue.rooms)
    decisions: list[Decision] = []
    too_large = None
    for job in sorted(queue.waiting, key=lambda each: (-each.priority, each.submit_ms, each.job)):
        if rooms.free_total <= 0:
            break
        if too_large is not None and job.parts * job.slots >= too_large:
            continue
        parts = rooms.fit(job)
        if parts is not None:
            rooms.take(job, parts)
            decisions.append(Begin(job=job.job, parts=parts, why="It came first of those that fit."))
        elif may_overtake:
            if job.parts == 1:
                too_large = job.slots
        else:
            break
    return decisions
