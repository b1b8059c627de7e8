"""What the newest steps of a run took, and what it was predicted to take: out of stored messages."""

from __future__ import annotations

from collections.abc import Iterable

from services.scheduler.calibration import Interval
from services.scheduler.wire.times import milliseconds
from tuneforge.v1 import events_pb2, jobs_pb2


def step_seconds(payloads: Iterable[bytes]) -> list[float]:
    """Returns the time from each step to the next one of the same attempt, in seconds.

    Evaluations and checkpoints between two steps are part of it. Where the clock says nothing, the step's own time
    counts.

    Args:
        payloads: Serialised `EventBatch`es of one job, in order.
    """
    found: list[float] = []
    before: events_pb2.Event | None = None
    for payload in payloads:
        for event in events_pb2.EventBatch.FromString(payload).events:
            if event.WhichOneof("payload") != "step" or event.node_rank:
                continue
            if before is not None and (before.attempt, before.step.step + 1) == (event.attempt, event.step.step):
                passed_s = (milliseconds(event.time) - milliseconds(before.time)) / 1000
                found.append(max(passed_s, event.step.step_seconds))
            elif event.step.step_seconds:
                found.append(event.step.step_seconds)
            before = event
    return [each for each in found if each > 0]


def predicted_seconds(estimate: bytes | None) -> Interval | None:
    """Returns the time that all steps of a run were predicted to take; None when that is not known."""
    if not estimate:
        return None
    message = jobs_pb2.ResourceEstimate.FromString(estimate)
    if not message.HasField("total_seconds"):
        return None
    total = message.total_seconds
    return Interval(expected=total.expected, lowest=total.lowest, highest=total.highest)
