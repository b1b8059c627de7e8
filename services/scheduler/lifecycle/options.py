"""What a caller says of a job beside what to train."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from services.scheduler.jobs import RetryPolicy


class Reuse(StrEnum):
    """Which earlier job may stand for a new one that would train the same."""

    NEVER = "NEVER"
    FINISHED = "FINISHED"
    FINISHED_OR_RUNNING = "FINISHED_OR_RUNNING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a caller says of a job beside what to train."""

    budget: int | None = None
    """Attempts that may be lost to infrastructure; None: the scheduler's."""
    user_budget: int | None = None
    """Faults of its own after which it is tried again; None: the scheduler's."""
    first_delay_s: float | None = None
    longest_delay_s: float | None = None
    ttl_ms: int | None = None
    """It is removed so long after its end; None: never."""
    reuse: Reuse = Reuse.NEVER
    names_output: bool = False
    """Whether the spec names the model that it publishes into; else any model's version may be its result."""
    problems: tuple[tuple[str, str], ...] = field(default=())
    """Fields of the request that are wrong, and what they may be."""

    def retry(self, usual: RetryPolicy) -> RetryPolicy:
        """Returns the job's policy, what it leaves out as usual."""
        first_s = usual.first_delay_s if self.first_delay_s is None else self.first_delay_s
        longest_s = usual.longest_delay_s if self.longest_delay_s is None else self.longest_delay_s
        return RetryPolicy(
            budget=usual.budget if self.budget is None else self.budget,
            user_budget=usual.user_budget if self.user_budget is None else self.user_budget,
            first_delay_s=first_s,
            longest_delay_s=max(first_s, longest_s),
        )


NO_OPTIONS = Options()
