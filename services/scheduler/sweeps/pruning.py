"""Whether a running trial is worth its device: exact arithmetic on reports, the same as Optuna's rules.

Successive halving is the asynchronous one (Li et al., arXiv 1810.05934) as Optuna's `SuccessiveHalvingPruner` has it: a
trial is judged once at each rung, when it comes there, against all that came there before. The median rule is that of
its `MedianPruner`. Read `docs/adr/0039-*`: why they are written out here.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.scheduler.sweeps.plan import Goal, Halving, Median

Reports = Sequence[tuple[int, float]]
"""Steps and values of one trial, in the order of the steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a running trial stands."""

    reports: Reports
    rungs: int = 0
    """Rungs that it was let past."""
    total_steps: int = 0
    """Steps of its run; 0: not known yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What becomes of a running trial."""

    rungs: int
    """Rungs that it is past now."""
    step: int = 0
    """Where it is stopped; 0: it goes on."""
    why: str = ""
    """Sentence for a person, when it is stopped."""


def judge(rule: Halving | Median, goal: Goal, trial: Standing, others: Iterable[Reports]) -> Ruling:
    """Judges a running trial.

    Args:
        rule: How.
        goal: What is compared.
        trial: The trial.
        others: Reports of the other trials of its round, whatever became of them.
    """
    if isinstance(rule, Halving):
        return _halve(rule, goal, trial, list(others))
    return _compare(rule, goal, trial, list(others))


def _halve(rule: Halving, goal: Goal, trial: Standing, others: list[Reports]) -> Ruling:
    rungs = trial.rungs
    while True:
        rung = rule.min_steps * rule.reduction_factor**rungs
        arrived = _at(trial.reports, rung)
        if arrived is None or _is_over(trial, arrived[0]):
            return Ruling(rungs=rungs)
        step, value = arrived
        there = [found[1] for each in others if (found := _at(each, rung)) is not None]
        ranks = sorted(goal.rank(each) for each in (*there, value) if math.isfinite(each))
        go_on = max(1, (len(there) + 1) // rule.reduction_factor)
        if not math.isfinite(value) or goal.rank(value) > ranks[min(go_on, len(ranks)) - 1]:
            why = (
                f"At step {step} its value is {value:.6g}; of {len(there) + 1} trials that came to step {rung} the "
                f"best {go_on} {'goes' if go_on == 1 else 'go'} on."
            )
            return Ruling(rungs=rungs, step=step, why=why)
        rungs += 1


def _at(reports: Reports, step: int) -> tuple[int, float] | None:
    return next((each for each in reports if each[0] >= step), None)


def _is_over(trial: Standing, step: int) -> bool:
    """A run at its last step is not stopped: there is nothing left to save."""
    return trial.total_steps > 0 and step >= trial.total_steps


def _compare(rule: Median, goal: Goal, trial: Standing, others: list[Reports]) -> Ruling:
    stays = Ruling(rungs=trial.rungs)
    if not trial.reports:
        return stays
    step = trial.reports[-1][0]
    if step < rule.min_steps or _is_over(trial, step):
        return stays
    there = [
        goal.rank(value) for each in others if (value := dict(each).get(step)) is not None and math.isfinite(value)
    ]
    if len(there) < rule.min_trials:
        return stays
    finite = [goal.rank(value) for _, value in trial.reports if math.isfinite(value)]
    middle = statistics.median(there)
    if finite and min(finite) <= middle:
        return stays
    best = f"{goal.rank(min(finite)):.6g}" if finite else "no finite number"
    why = f"At step {step} its best value is {best}; the median of {len(there)} other trials there is "
    return Ruling(rungs=trial.rungs, step=step, why=f"{why}{goal.rank(middle):.6g}.")
