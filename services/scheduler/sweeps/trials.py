"""Sweeps and trials as they are stored, and what is read off them: the best one, what is open, what was spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from services.scheduler.jobs import TERMINAL, JobState
from services.scheduler.records import Ref
from services.scheduler.sweeps.plan import Goal, SweepPlan
from services.scheduler.sweeps.space import Point
from tuneforge.names import JobName, SweepName, TrialName


class SweepState(StrEnum):
    """State of a sweep, spelt as in the contract without its prefix."""

    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    STOPPING = "STOPPING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class TrialState(StrEnum):
    """State of a trial, spelt as in the contract without its prefix."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    PRUNED = "PRUNED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


ENDED_SWEEP = frozenset({SweepState.SUCCEEDED, SweepState.FAILED, SweepState.CANCELLED})
"""States that a sweep never leaves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSweep:
    """A sweep that was checked and is not stored yet."""

    name: SweepName
    creator: str
    labels: Mapping[str, str]
    spec: bytes
    """Serialised `TrainingSpec` that the trials have in common, its names pinned, no defaults filled in."""
    plan: bytes
    """Serialised `SweepPlan`, defaults filled in."""
    combinations: int
    """Points of the space; 0: no end of them."""
    cost: bytes
    """Serialised `SweepCost`."""
    versions: tuple[str, ...]
    """Versions that the trials read, held at the registry as long as it goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A sweep as it is stored."""

    number: int
    name: SweepName
    state: SweepState
    reason: str
    message: str
    creator: str
    labels: Mapping[str, str]
    spec: bytes
    plan_message: bytes
    plan: SweepPlan
    combinations: int
    cost: bytes
    rounds_done: int
    """Rounds that take no more trials."""
    failure: bytes | None
    revision: int
    """Grows with each change of the sweep or of a trial."""
    create_ms: int
    end_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A trial as it is stored, beside what its job says."""

    number: int
    name: TrialName
    round: int
    """Counted from 1."""
    point: Point
    digest: str
    state: TrialState
    message: str
    """Why it is in this state, where that is not plain."""
    job: int | None = None
    """Number of its job; None: it was refused before it became one."""
    job_name: JobName | None = None
    job_state: JobState | None = None
    job_message: str = ""
    published: Ref | None = None
    value: float | None = None
    """What it counts as; set when it has ended well, and when it was stopped after a report."""
    reports: tuple[tuple[int, float], ...] = ()
    """Steps and values of its metric, in the order of the steps."""
    rungs: int = 0
    """Rungs of successive halving that it is past."""
    stop_step: int = 0
    """Step at which it was found not worth its device; 0: it was not."""
    is_paused: bool = False
    """Whether its job was paused with the sweep."""
    read_seq: int = 0
    """Events of its job up to this one are in `reports`."""
    latest_seq: int = 0
    """Newest event of its job."""
    total_steps: int = 0
    step: int = 0
    device_seconds: float = 0.0
    revision: int = 0
    create_ms: int = 0
    end_ms: int | None = None

    @property
    def is_open(self) -> bool:
        """Returns whether it has not ended."""
        return self.state is TrialState.RUNNING

    @property
    def is_job_over(self) -> bool:
        """Returns whether its job has ended, and all that the job said is in `reports`."""
        return self.job_state in TERMINAL and self.read_seq >= self.latest_seq

    @property
    def judged(self) -> tuple[tuple[int, float], ...]:
        """Its reports up to where it was stopped; what came while it was being stopped says nothing about others."""
        return tuple(each for each in self.reports if not self.stop_step or each[0] <= self.stop_step)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standings:
    """A sweep with all of its trials, by number."""

    sweep: Sweep
    trials: tuple[Trial, ...] = ()

    def of_round(self, number: int) -> tuple[Trial, ...]:
        """Returns the trials of a round, counted from 1."""
        return tuple(each for each in self.trials if each.round == number)

    @property
    def open_ones(self) -> tuple[Trial, ...]:
        """Returns the trials that have not ended."""
        return tuple(each for each in self.trials if each.is_open)

    @property
    def device_seconds(self) -> float:
        """Returns what all trials have used of devices so far."""
        return sum(each.device_seconds for each in self.trials)


def best_of(trials: Sequence[Trial], goal: Goal, count: int = 1) -> list[Trial]:
    """Returns the best trials of those that have succeeded, the best first; of equal ones the older first."""
    ended = [each for each in trials if each.state is TrialState.SUCCEEDED and each.value is not None]
    return sorted(ended, key=lambda each: (goal.rank(each.value or 0.0), each.number))[:count]


def best_trial(trials: Sequence[Trial], goal: Goal) -> Trial | None:
    """Returns the best trial of a sweep: of the last round in which one has succeeded, for it has seen most data."""
    rounds = sorted({each.round for each in trials}, reverse=True)
    found = (best_of([each for each in trials if each.round == number], goal) for number in rounds)
    return next((best[0] for best in found if best), None)
