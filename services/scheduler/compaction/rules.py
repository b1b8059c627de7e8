"""Which logs are thinned out, and which of their events stay. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from tuneforge.v1 import events_pb2

VERIFIED_STEPS = 32
"""Steps after a checkpoint that a verification of its resume may compare; they stay while it can be asked for."""
NEWEST_MIN = 16
"""So many of the newest events always stay: with them the end of the run's record can be checked."""
_TOLD = {events_pb2.LOG_SEVERITY_WARNING, events_pb2.LOG_SEVERITY_ERROR}


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionPolicy:
    """What is thinned out. Running jobs keep all events, whatever it says."""

    after_s: float = 0.0
    """How long after its end a job's log is thinned out, in seconds; 0: never for its age."""
    above_bytes: int = 0
    """Size of all logs above which those of ended jobs are thinned out, the oldest first; 0: never for the size."""
    keep_every: int = 10
    """Every so-many-th step and sample of devices stays, at least 1."""
    keep_newest: int = 100
    """So many of the newest events of each job stay as they are, at least `NEWEST_MIN`."""
    every_s: float = 60.0
    """How often it is looked for logs that are due, in seconds."""

    @property
    def newest(self) -> int:
        """So many of the newest events of each job stay as they are."""
        return max(self.keep_newest, NEWEST_MIN)

    @property
    def is_on(self) -> bool:
        """Whether anything is ever thinned out."""
        return self.after_s > 0 or self.above_bytes > 0


def ended_before_ms(now_ms: int, after_s: float, jumps: Iterable[tuple[int, int]]) -> int:
    """Returns before which moment a job must have ended for its log to be so old by a clock that nobody sets.

    Args:
        now_ms: Now.
        after_s: Age of a log, in seconds.
        jumps: What the clock said after each jump and how far it went forward, the newest first.
    """
    found = now_ms - round(after_s * 1000)
    first_again_ms = now_ms
    for at_ms, jump_ms in jumps:
        if found > at_ms:
            break
        first_again_ms = min(first_again_ms, at_ms)
        found = min(found - jump_ms, first_again_ms)  # set back, moments come twice: they are those after the jumps
    return found


def stays(event: events_pb2.Event, policy: CompactionPolicy, checkpoints: Collection[int]) -> bool:
    """Returns whether an event stays.

    Args:
        event: An event of a job that has ended, not one of its newest.
        policy: What the operator wants.
        checkpoints: Steps of the job's checkpoints in the blob store, from which its resume can be verified.
    """
    match event.WhichOneof("payload"):
        case "step":
            step = event.step.step
            return _is_sampled(step, event.step.total_steps, policy) or _is_verified(step, checkpoints)
        case "task":
            return event.task.is_validation or _is_sampled(event.task.step, 0, policy)
        case "device":
            return event.seq % policy.keep_every == 0
        case "log":
            return event.log.severity in _TOLD
        case _:
            return True


def _is_sampled(step: int, last: int, policy: CompactionPolicy) -> bool:
    return step in (1, last) or step % policy.keep_every == 0


def _is_verified(step: int, checkpoints: Collection[int]) -> bool:
    return any(checkpoint < step <= checkpoint + VERIFIED_STEPS for checkpoint in checkpoints)
