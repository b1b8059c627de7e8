"""How long a job still needs on its devices, with an interval, and where that comes from. Pure.

Its own steps come first, when enough of them were measured; then what its spec was predicted to take; then how long
finished runs took; then a guess that says so.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from services.scheduler.calibration import Interval

FEWEST_STEPS = 3
"""Steps from which on measured times count."""
STEP_SPREAD = 0.1
"""Share that the mean of the steps to come may lie beside that of the newest ones."""
FINISH_MS = Interval(expected=3_000, lowest=300, highest=20_000)
"""From the last step to the published version: artifacts are uploaded and registered."""
BEGIN_MS = Interval(expected=8_000, lowest=1_000, highest=45_000)
"""From the placement to the first step: the base is fetched and loaded."""
GUESS_MS = Interval(expected=900_000, lowest=60_000, highest=7_200_000)
"""Run time where nothing is known."""
LEAST_LEFT = 0.05
"""Share of the predicted time that is left at least while no step says more: predictions may be short."""
FEWEST_RUNS = 3
"""Finished runs from which on their times count."""


class Basis(StrEnum):
    """Where a run time comes from, spelt as in the contract without its prefix."""

    STEPS = "STEPS"
    ESTIMATE = "ESTIMATE"
    HISTORY = "HISTORY"
    GUESS = "GUESS"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """What the newest steps of a job took, in seconds."""

    count: int
    median_s: float
    low_s: float
    """One step in ten took less."""
    high_s: float
    """One step in ten took more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTime:
    """Time that a job still needs on its devices."""

    left_ms: Interval
    basis: Basis
    steps: StepTimes | None = None
    """With STEPS."""
    runs: int = 0
    """With HISTORY: finished runs that it comes from."""

    def at(self, which: str) -> float:
        """Returns the `expected`, `lowest` or `highest` time, at least a millisecond."""
        return max(1.0, float(getattr(self.left_ms, which)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a job's run."""

    step: int = 0
    """Last finished step; a job that goes on elsewhere begins after its newest checkpoint."""
    total_steps: int = 0
    """0: not known yet."""
    has_node: bool = False
    held_ms: int = 0
    """How long its attempt has held its devices."""
    estimate_s: Interval | None = None
    """Predicted time of all steps in seconds."""
    steps: StepTimes | None = None


def step_times(seconds: Sequence[float]) -> StepTimes | None:
    """Returns what steps took; None without any."""
    ordered = sorted(each for each in seconds if math.isfinite(each) and each > 0)
    if not ordered:
        return None
    last = len(ordered) - 1
    return StepTimes(
        count=len(ordered),
        median_s=statistics.median(ordered),
        low_s=ordered[round(0.1 * last)],
        high_s=ordered[round(0.9 * last)],
    )


def run_time(facts: Facts, history_s: Sequence[float] = ()) -> RunTime:
    """Returns the time that a job still needs on its devices.

    Args:
        facts: What is known of it.
        history_s: Times of finished runs in seconds, newest first, any number.
    """
    begin = FINISH_MS if facts.has_node and facts.step else _sum(BEGIN_MS, FINISH_MS)
    steps = facts.steps
    if steps is not None and steps.count >= FEWEST_STEPS and facts.total_steps:
        return RunTime(left_ms=_sum(_by_steps(facts, steps), begin), basis=Basis.STEPS, steps=steps)
    if facts.estimate_s is not None and facts.estimate_s.highest > 0:
        return RunTime(left_ms=_sum(_left(facts, facts.estimate_s.times(1000)), begin), basis=Basis.ESTIMATE)
    if len(history_s) >= FEWEST_RUNS:
        ordered = sorted(history_s)
        last = len(ordered) - 1
        whole = Interval(
            expected=statistics.median(ordered), lowest=ordered[round(0.1 * last)], highest=ordered[round(0.9 * last)]
        )
        return RunTime(left_ms=_sum(_left(facts, whole.times(1000)), begin), basis=Basis.HISTORY, runs=len(ordered))
    return RunTime(left_ms=_left(facts, GUESS_MS), basis=Basis.GUESS)


def _by_steps(facts: Facts, steps: StepTimes) -> Interval:
    left = max(0, facts.total_steps - facts.step)
    expected = left * steps.median_s * 1000
    # The spread of single steps counts less, the more of them are added up.
    scatter = (steps.high_s - steps.low_s) / 2 / steps.median_s / math.sqrt(max(1, left))
    share = STEP_SPREAD + scatter
    return Interval(expected=expected, lowest=expected * max(0.0, 1 - share), highest=expected * (1 + share))


def _left(facts: Facts, whole_ms: Interval) -> Interval:
    """Returns what is left of a whole run's time."""
    if facts.total_steps and facts.step:
        return whole_ms.times(max(0, facts.total_steps - facts.step) / facts.total_steps)
    if not facts.held_ms:
        return whole_ms
    least = LEAST_LEFT * whole_ms.expected

    def rest(value: float) -> float:
        return max(least, value - facts.held_ms)

    expected = rest(whole_ms.expected)
    return Interval(
        expected=expected, lowest=min(expected, rest(whole_ms.lowest)), highest=max(expected, rest(whole_ms.highest))
    )


def _sum(one: Interval, other: Interval) -> Interval:
    return Interval(
        expected=one.expected + other.expected,
        lowest=one.lowest + other.lowest,
        highest=one.highest + other.highest,
    )
