"""Which trials are not worth their device: by our own arithmetic, held against Optuna's pruners."""

from __future__ import annotations

import warnings

import optuna
from hypothesis import given, settings
from hypothesis import strategies as st

from services.scheduler.sweeps.plan import Goal, Halving, Median
from services.scheduler.sweeps.pruning import Reports, Ruling, Standing, judge

curves = st.lists(st.floats(-4, 4, width=16), min_size=1, max_size=12)
"""Values of a run at steps 1, 2, 3, ..."""


def ours(rule: Halving | Median, goal: Goal, runs: list[list[float]]) -> list[int]:
    """Returns where each of some runs, one after the other, is stopped; 0: nowhere."""
    before: list[Reports] = []
    stops = []
    for values in runs:
        made: list[tuple[int, float]] = []
        ruling = Ruling(rungs=0)
        for step, value in enumerate(values, 1):
            made.append((step, value))
            ruling = judge(rule, goal, Standing(reports=made, rungs=ruling.rungs), before)
            if ruling.step:
                break
        stops.append(ruling.step)
        before.append(made)
    return stops


def theirs(pruner: optuna.pruners.BasePruner, goal: Goal, runs: list[list[float]]) -> list[int]:
    """Returns the same by Optuna."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if goal.is_maximised else "minimize", pruner=pruner)
    stops = []
    for values in runs:
        trial = study.ask()
        stop = 0
        for step, value in enumerate(values, 1):
            trial.report(value, step)
            if trial.should_prune():
                stop = step
                break
        if stop:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, values[-1])
        stops.append(stop)
    return stops


@settings(max_examples=60, deadline=None)
@given(st.lists(curves, min_size=1, max_size=8), st.integers(1, 3), st.integers(2, 4), st.booleans())
def test_halving_stops_whom_optuna_stops(runs: list[list[float]], first: int, factor: int, maximised: bool) -> None:
    """The same trials at the same steps, whichever way is better."""
    goal = Goal(is_maximised=maximised)
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=factor)
    assert ours(Halving(min_steps=first, reduction_factor=factor), goal, runs) == theirs(pruner, goal, runs)


@settings(max_examples=60, deadline=None)
@given(st.lists(curves, min_size=1, max_size=8), st.integers(1, 3), st.integers(1, 4), st.booleans())
def test_the_median_stops_whom_optuna_stops(runs: list[list[float]], trials: int, first: int, maximised: bool) -> None:
    """The same trials at the same steps, where each run comes to its end or is stopped."""
    goal = Goal(is_maximised=maximised)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=0, n_warmup_steps=first, n_min_trials=trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        expected = theirs(pruner, goal, runs)
    found = ours(Median(min_trials=trials, min_steps=first), goal, runs)
    # Optuna looks at ended trials alone, and never compares a trial with one that was stopped.
    if not any(expected):
        assert not any(found)
    first_stop = next((index for index, step in enumerate(expected) if step), len(runs))
    assert found[: first_stop + 1] == expected[: first_stop + 1]


def test_a_trial_is_judged_once_at_a_rung() -> None:
    """Who was let past a rung is not stopped there when a better one comes later."""
    rule, goal = Halving(min_steps=10, reduction_factor=2), Goal()
    first = judge(rule, goal, Standing(reports=[(10, 2.0)]), [])
    assert (first.rungs, first.step) == (1, 0)
    again = judge(rule, goal, Standing(reports=[(10, 2.0), (15, 2.0)], rungs=1), [[(10, 1.0)]])
    assert (again.rungs, again.step) == (1, 0)
    worse = judge(rule, goal, Standing(reports=[(12, 3.0)]), [[(10, 2.0)]])
    assert worse.step == 12
    assert worse.why == "At step 12 its value is 3; of 2 trials that came to step 10 the best 1 goes on."


def test_a_run_at_its_end_goes_on() -> None:
    """At its last step there is nothing left to save: its result may be published."""
    for rule in (Halving(min_steps=4), Median(min_trials=1)):
        others: list[Reports] = [[(4, 0.1)], [(4, 0.2)]]
        standing = Standing(reports=[(4, 9.0)], total_steps=4)
        assert judge(rule, Goal(), standing, others).step == 0
        assert judge(rule, Goal(), Standing(reports=[(4, 9.0)], total_steps=5), others).step == 4


def test_a_value_that_is_no_number_is_the_worst() -> None:
    """It ends its own trial and no other one."""
    rule, goal = Halving(min_steps=1), Goal()
    assert judge(rule, goal, Standing(reports=[(1, float("nan"))]), []).step == 1
    assert judge(rule, goal, Standing(reports=[(1, 5.0)]), [[(1, float("inf"))]]).step == 0
