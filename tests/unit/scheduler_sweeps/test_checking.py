"""What is refused of a sweep's plan: all of it at once, each with its place."""

from __future__ import annotations

from typing import Any

import pytest

from services.scheduler.wire.sweeps import plan_to_proto, stored_plan
from tests.unit.scheduler_sweeps.spaces import looked_at, plan_of, preference_spec, problems
from tuneforge.v1 import sweeps_pb2

RATE = "optimization.learning_rate"


def test_everything_that_is_wrong_is_listed_at_once() -> None:
    """Paths, values, ranges, limits and the goal, in one answer."""
    plan = plan_of(
        {
            "optimization.learning_rat": [0.1],
            "lora.rank": [8],
            "base.model": ["x"],
            "optimization.weight_decay": {"low": 1.0, "high": 0.5, "step": -1.0},
            "optimization.max_grad_norm": {"low": 0.0, "high": 1.0, "log": True},
            "optimization.schedule": ["cosine", "sine"],
            "full.freeze_layers": {"low": 0.5, "high": 2},
            "guards.stall_after": [3],
            "optimization.warmup_ratio": [0.5, 2.0],
        },
        parallel_trials=-1,
        max_failed_trials=-2,
        max_device_seconds=-1.0,
        goal=sweeps_pb2.SweepGoal(metric="accuracy"),
    )
    found = problems(plan)
    assert set(found) == {
        "plan.parameters[0].field",
        "plan.parameters[1].field",
        "plan.parameters[2].field",
        "plan.parameters[3].range.high",
        "plan.parameters[3].range.step",
        "plan.parameters[4].range.low",
        "plan.parameters[5].choices.values[1]",
        "plan.parameters[6].range.low",
        "plan.parameters[7].field",
        "plan.parameters[8].choices.values[1]",
        "plan.parallel_trials",
        "plan.max_failed_trials",
        "plan.max_device_seconds",
        "plan.goal.metric",
    }
    assert "did you mean `learning_rate`" in found["plan.parameters[0].field"]
    assert "the spec has `full`" in found["plan.parameters[1].field"]
    assert "cosine, linear" in found["plan.parameters[5].choices.values[1]"]


@pytest.mark.parametrize(
    ("space", "place", "words"),
    [
        ({RATE: {"low": 1e-3, "high": 1000.0, "log": True}}, "range.high", "use at most 100"),
        ({"optimization.warmup_ratio": {"low": 0.5, "high": 1.0, "step": 0.5}}, "range.high", "less than 1"),
        ({"preference.label_smoothing": [0.1, 0.5]}, "choices.values[1]", "0.5"),
        ({"optimization.epochs": [0]}, "choices.values[0]", "use a number > 0"),
        ({"full.freeze_layers": {"low": 0, "high": 1e30}}, "range.high", "from 0 to 4294967295"),
        ({"full.freeze_layers": {"low": -5, "high": 6}}, "range.low", "from 0 to 4294967295"),
    ],
)
def test_the_specs_own_rules_are_asked_about_values(space: dict[str, Any], place: str, words: str) -> None:
    """A value that no trial could begin with is found before the first one."""
    found = problems(plan_of(space))
    assert list(found) == [f"plan.parameters[0].{place}"]
    assert words in found[f"plan.parameters[0].{place}"]


def conditional(values: list[str]) -> sweeps_pb2.SweepPlan:
    """Returns a plan in which a field is there beside some schedules."""
    plan = plan_of({"optimization.schedule": ["cosine", "WSD"], "optimization.decay_ratio": [0.1, 0.2]})
    when = plan.parameters[1].when.add(field="optimization.schedule")
    for value in values:
        when.values.add(string_value=value)
    return plan


def test_a_value_is_looked_at_beside_what_its_condition_wants() -> None:
    """`decay_ratio` is for one schedule: beside it, it is fine; without the condition it is refused."""
    assert problems(conditional(["wsd"])) == {}
    assert set(problems(conditional(["cosine"]))) == {f"plan.parameters[1].choices.values[{n}]" for n in (0, 1)}
    assert set(problems(conditional(["linear"]))) == {"plan.parameters[1].when[0].values"}
    assert set(problems(conditional([]))) == {"plan.parameters[1].when[0].values"}


def test_conditions_in_a_circle_are_refused() -> None:
    """Two parameters that wait for each other would never be there."""
    plan = conditional(["wsd"])
    plan.parameters[0].when.add(field="optimization.decay_ratio").values.add(number_value=0.1)
    assert "plan.parameters" in problems(plan)


def test_a_goal_needs_what_it_is_measured_on() -> None:
    """A validation loss needs rows for validation; pruning by it needs evaluations during the run."""
    pruning = sweeps_pb2.SweepPruning(median=sweeps_pb2.MedianRule())
    bare = preference_spec()
    bare.data.ClearField("validation")
    rare = preference_spec()
    rare.evaluation.every_steps = 0
    assert set(problems(plan_of({RATE: [0.1]}), bare)) == {"plan.goal.metric"}
    assert set(problems(plan_of({RATE: [0.1]}, pruning=pruning), rare)) == {"plan.pruning"}
    by_training = sweeps_pb2.SweepGoal(metric="training_loss")
    assert problems(plan_of({RATE: [0.1]}, pruning=pruning, goal=by_training), bare) == {}


def test_rounds_are_checked_with_their_numbers() -> None:
    """Shares, trials, and what a first round could be narrowed to."""
    rounds = [
        sweeps_pb2.SweepRound(num_trials=0, train_fraction=1.5, narrow_to_best=1),
        sweeps_pb2.SweepRound(num_trials=3, narrow_to_best=-1),
    ]
    found = problems(plan_of({RATE: [0.1], "data.train_fraction": [0.5]}, 7, rounds=rounds))
    assert set(found) == {
        "plan.parameters[1].field",
        "plan.rounds[0].num_trials",
        "plan.rounds[0].train_fraction",
        "plan.rounds[0].narrow_to_best",
        "plan.rounds[1].narrow_to_best",
        "plan.num_trials",
    }


def test_a_grid_has_an_end() -> None:
    """A range of numbers without a step is refused; one of whole numbers has a step of its own."""
    grid = {"algorithm": sweeps_pb2.SEARCH_ALGORITHM_GRID}
    assert set(problems(plan_of({RATE: {"low": 1e-5, "high": 1e-3}}, **grid))) == {"plan.parameters[0].range.step"}
    assert problems(plan_of({"full.freeze_layers": {"low": 0, "high": 3}}, **grid)) == {}


def test_a_plan_comes_back_from_its_message() -> None:
    """What is stored is what was checked."""
    plan = conditional(["wsd"])
    plan.pruning.successive_halving.SetInParent()
    plan.rounds.add(num_trials=4, train_fraction=0.25)
    plan.rounds.add(num_trials=2, narrow_to_best=2)
    plan.num_trials = 0
    read, wrong = looked_at(plan)
    assert wrong == []
    assert (read.pruning.min_steps, read.pruning.reduction_factor, read.num_trials) == (5, 3, 6)
    assert looked_at(plan_to_proto(read)) == (read, [])
    assert stored_plan(plan_to_proto(read).SerializeToString()) == read
