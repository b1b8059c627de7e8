"""Proposals: from our own trials alone, the same each time, and never the same parameters twice."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.scheduler.sweeps.asking import Question, Told, importances, propose
from services.scheduler.sweeps.plan import Algorithm, Condition, Goal, Parameter
from services.scheduler.sweeps.space import Point, digest_of, points
from tests.unit.scheduler_sweeps.spaces import choices, ranged

RATE = ranged("rate", 1e-5, 1e-1, is_log=True)
RANK = choices("rank", 4, 8, 16)


def question(*space: Parameter, told: tuple[Told, ...] = (), **changes: object) -> Question:
    """Returns a question after some trials."""
    fields: dict[str, object] = {
        "parameters": space,
        "algorithm": Algorithm.TPE,
        "goal": Goal(),
        "seed": 7,
        "number": len(told) + 1,
        "num_trials": 12,
        "told": told,
        "taken": frozenset(digest_of(each.point, 0.0) for each in told),
        "train_fraction": 0.0,
    }
    return Question(**(fields | changes))  # type: ignore[arg-type]


def search(*space: Parameter, trials: int, algorithm: Algorithm, value: object, seed: int = 7) -> list[Point]:
    """Returns the points of a whole search, each told before the next is asked for."""
    told: tuple[Told, ...] = ()
    for _ in range(trials):
        found = propose(question(*space, told=told, algorithm=algorithm, seed=seed, num_trials=trials))
        if found is None:
            break
        told += (Told(point=found, value=value(found)),)  # type: ignore[operator]
    return [each.point for each in told]


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_the_same_rows_give_the_same_proposal(algorithm: Algorithm) -> None:
    """Whatever the kind of search; another seed of a search at random gives another."""
    told = tuple(
        Told(point={"rate": 10.0**-number, "rank": 8}, value=float(number), is_open=number == 4)
        for number in (1, 2, 3, 4)
    )
    space = (choices("rate", 0.1, 0.01, 0.5), RANK) if algorithm is Algorithm.GRID else (RATE, RANK)
    asked = question(*space, told=told, algorithm=algorithm)
    first = propose(asked)
    assert first is not None
    assert propose(asked) == first
    if algorithm is not Algorithm.GRID:
        assert propose(replace(asked, seed=8)) != first


def test_a_fresh_process_proposes_the_same() -> None:
    """Nothing is kept between two proposals: a scheduler that was started anew goes on as the one before."""
    told = tuple(Told(point={"rate": 10.0**-number}, value=float(number)) for number in (2, 3, 4, 5))
    program = (
        "from tests.unit.scheduler_sweeps.test_asking import *\n"
        "told = tuple(Told(point={'rate': 10.0**-number}, value=float(number)) for number in (2, 3, 4, 5))\n"
        "print(propose(question(RATE, told=told)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(propose(question(RATE, told=told)))


def test_optuna_is_not_loaded_with_the_rules() -> None:
    """A scheduler without sweeps does not pay for it."""
    program = "import sys, services.scheduler.service\nprint('optuna' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_tpe_finds_a_better_rate_than_chance() -> None:
    """On a bowl around one rate it comes nearer than a search at random, in the middle of five seeds."""

    def miss(point: Point) -> float:
        import math

        rate = point["rate"]
        assert isinstance(rate, float)
        return abs(math.log10(rate) + 3.3)

    def nearest(algorithm: Algorithm, seed: int) -> float:
        return min(map(miss, search(RATE, trials=20, algorithm=algorithm, value=miss, seed=seed)))

    tpe, chance = ([nearest(each, seed) for seed in range(5)] for each in (Algorithm.TPE, Algorithm.RANDOM))
    assert sorted(tpe)[2] < sorted(chance)[2]
    assert sorted(tpe)[2] < 0.1


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(list(Algorithm)), st.integers(0, 2**32))
def test_no_point_is_proposed_twice_and_every_point_once_in_the_end(algorithm: Algorithm, seed: int) -> None:
    """A space with an end is tried whole; then there is nothing to propose."""
    depth = Parameter(field="depth", values=choices("", 1, 2).values, when=(Condition(field="rank", values=(8,)),))
    space = (RANK, depth)
    found = search(*space, trials=20, algorithm=algorithm, value=lambda point: float(point["rank"]), seed=seed)
    assert sorted(map(str, found)) == sorted(map(str, points(space)))


def test_a_grid_goes_in_order() -> None:
    """The last parameter changes fastest, and what was tried is passed over."""
    found = search(RANK, choices("flag", True, False), trials=3, algorithm=Algorithm.GRID, value=lambda _: 0.0)
    assert found == [{"rank": 4, "flag": True}, {"rank": 4, "flag": False}, {"rank": 8, "flag": True}]


def test_the_best_points_of_the_round_before_come_first() -> None:
    """In their order, unless they were tried on the same share of the data."""
    first = [{"rate": 0.01}, {"rate": 0.02}]
    asked = question(RATE, first=first)
    assert propose(asked) == {"rate": 0.01}
    assert propose(replace(asked, taken={digest_of(first[0], 0.0)})) == {"rate": 0.02}


def test_failed_trials_teach_nothing_and_stopped_ones_do() -> None:
    """A trial without a value leaves the next proposal as it is; one that was stopped counts with its reports."""
    told = tuple(Told(point={"rate": 10.0**-number}, value=float(number)) for number in (1, 2, 3, 4, 5))
    asked = question(RATE, told=told)
    failed = replace(asked, told=(*told, Told(point={"rate": 0.5})))
    assert propose(failed) == propose(asked)
    stopped = Told(point={"rate": 0.05}, value=9.0, reports=((1, 9.0),), is_pruned=True)
    assert propose(replace(asked, told=(*told, stopped))) is not None


def test_importance_shows_what_matters() -> None:
    """The rate decides here and the rank does not; three trials are too few to say."""
    told = [
        Told(point={"rate": rate, "rank": rank}, value=rate) for rate in (1e-4, 1e-3, 1e-2, 1e-1) for rank in (4, 8, 16)
    ]
    found = importances(told, (RATE, RANK), Goal())
    assert found["rate"] > 0.9
    assert abs(sum(found.values()) - 1) < 1e-9
    assert importances(told[:3], (RATE, RANK), Goal()) == {}
