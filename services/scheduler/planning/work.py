"""What the work of an attempt that ended early comes to: lost, or saved by a checkpoint. Pure.

It is reckoned when the next attempt has made its first step: then it is known which step that one went on from.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from services.scheduler.jobs import JobState, Verdict


class Cause(StrEnum):
    """Why an attempt ended early."""

    PREEMPTED = "PREEMPTED"
    """It gave way, or left a drained node."""
    PAUSED = "PAUSED"
    """Somebody, or a budget, paused it."""
    FAULT = "FAULT"
    """Its node, its process or the network."""


def cause_of(job: JobState, ruling: Verdict) -> Cause | None:
    """Returns why an attempt ended early, by its job's state before and what follows; None: the job goes no further."""
    if ruling.to is JobState.PAUSED:
        return Cause.PAUSED
    if ruling.to is not JobState.QUEUED:
        return None
    return Cause.PREEMPTED if job is JobState.PREEMPTING else Cause.FAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """An attempt that ended early after it had made steps."""

    slots: int
    """Devices that it held, on all of its nodes."""
    resumed_step: int
    """Step that it began after."""
    step: int
    """Its last one."""
    first_step_ms: int
    end_ms: int


def unsaved_part(resumed_step: int, step: int, saved_step: int) -> float:
    """Returns which part of an attempt's work, 0 to 1, no checkpoint has: that of its steps after `saved_step`."""
    made = step - resumed_step
    if made <= 0:
        return 0.0
    return min(1.0, max(0, step - max(saved_step, resumed_step)) / made)


def reckon(stretch: Stretch, went_on_from: int) -> tuple[int, int]:
    """Returns the device-milliseconds of work that were lost and those that were saved.

    Args:
        stretch: The attempt.
        went_on_from: Step that the next attempt with progress began after.
    """
    work_ms = stretch.slots * max(0, stretch.end_ms - stretch.first_step_ms)
    lost_ms = round(work_ms * unsaved_part(stretch.resumed_step, stretch.step, went_on_from))
    return lost_ms, work_ms - lost_ms
