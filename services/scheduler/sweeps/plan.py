"""What a sweep was asked to do, as frozen dataclasses: field by field as `SweepPlan` in the contract."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

Scalar = bool | int | float | str
Value = Scalar | tuple[Scalar, ...]
"""A value of a field: one, or a list of them."""

VALIDATION_LOSS = "validation_loss"
TRAINING_LOSS = "training_loss"
REDUCTION_FACTOR = 3
MEDIAN_TRIALS = 4


class Algorithm(StrEnum):
    """How the parameters of the next trial are chosen."""

    TPE = "TPE"
    RANDOM = "RANDOM"
    GRID = "GRID"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """One of some values."""

    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A number between two, both of which belong to it."""

    low: float
    high: float
    step: float = 0.0
    """Distance between two values from `low` on; 0: any number, of a whole number's field 1."""
    is_log: bool = False
    """Whether equal ratios are equally likely, not equal differences."""
    is_integer: bool = False
    """Whether its field takes whole numbers only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A parameter is there only while another one has one of some values."""

    field: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A field of the spec that is searched."""

    field: str
    """Path in the spec, e.g. `optimization.learning_rate`."""
    values: Choices | Range
    when: tuple[Condition, ...] = ()
    """All of them must hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What is compared."""

    metric: str = VALIDATION_LOSS
    """`validation_loss`, `training_loss`, or a figure that the task measures on the validation rows."""
    is_maximised: bool = False
    is_last: bool = False
    """Whether a trial counts by its last value, not by its best one."""

    def rank(self, value: float) -> float:
        """Returns a number that is the smaller, the better a value is."""
        return -value if self.is_maximised else value

    def value_of(self, reports: tuple[tuple[int, float], ...]) -> float | None:
        """Returns what a trial counts as by its reports, in the order of their steps; None without any."""
        if not reports:
            return None
        return reports[-1][1] if self.is_last else min((value for _, value in reports), key=self.rank)


@dataclass(frozen=True, slots=True, kw_only=True)
class Halving:
    """Successive halving: at each rung only one in `reduction_factor` trials goes on."""

    min_steps: int
    """Optimiser step of the first rung, >= 1; each further one is `reduction_factor` times as far."""
    reduction_factor: int = REDUCTION_FACTOR


@dataclass(frozen=True, slots=True, kw_only=True)
class Median:
    """A trial ends whose best value is worse than the median of the others at the same step."""

    min_trials: int = MEDIAN_TRIALS
    """Trials that must have come so far."""
    min_steps: int = 1
    """Optimiser steps before which no trial is ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A part of a sweep on a share of the data."""

    num_trials: int
    train_fraction: float = 0.0
    """Share of the rows for training; 0: as the spec says."""
    narrow_to_best: int = 0
    """Its space lies around the best so many trials of the round before, which are tried first; 0: the whole space."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """What a sweep was asked to do; defaults filled in."""

    parameters: tuple[Parameter, ...]
    goal: Goal = field(default_factory=Goal)
    algorithm: Algorithm = Algorithm.TPE
    rounds: tuple[Round, ...] = ()
    """At least one, once checked."""
    parallel_trials: int = 1
    seed: int = 0
    pruning: Halving | Median | None = None
    max_device_seconds: float = 0.0
    """No trial begins once so much was used; 0: no limit."""
    max_failed_trials: int = 0
    """The sweep fails with more failed trials than this; 0: it never does for that."""

    reuses_trained: bool = False
    """Whether an earlier job that trained the same stands for a trial."""

    @property
    def num_trials(self) -> int:
        """Trials of all rounds."""
        return sum(each.num_trials for each in self.rounds)

    def with_space(self, parameters: tuple[Parameter, ...]) -> SweepPlan:
        """Returns the same plan over another space."""
        return replace(self, parameters=parameters)
