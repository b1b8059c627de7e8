"""Whether the newest attempts of a job say that it is lost wherever it is started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from services.scheduler import wire
from services.scheduler.jobs import JobState, Verdict
from services.scheduler.lifecycle.lost_starts import LostStart, kills_nodes
from services.scheduler.records import Attempt

STARTS_LOOKED_AT = 8
"""Newest attempts among which a job that kills nodes is looked for."""


def unless_poison(ruling: Verdict, tried: Sequence[Sequence[Attempt]]) -> Verdict:
    """Returns a verdict, or in place of another attempt the end of a job that is lost wherever it is started.

    Args:
        ruling: What the end of the newest attempt means by itself.
        tried: Attempts of the job by their parts, newest first.
    """
    failure = kills_nodes(map(_lost_start, tried)) if ruling.to is JobState.QUEUED else None
    if failure is None:
        return ruling
    message = failure.message
    return replace(ruling, to=JobState.FAILED, reason=failure.reason, message=message, failure=failure, delay_s=0.0)


def _lost_start(parts: Sequence[Attempt]) -> LostStart:
    first, failures = parts[0], [part.failure for part in parts if part.failure is not None]
    return LostStart(
        number=first.name.attempt,
        nodes=tuple(part.node for part in parts),
        reason=wire.failure_from_bytes(failures[0]).reason if failures else "",
        made_steps=first.step > first.resumed_step,
    )
