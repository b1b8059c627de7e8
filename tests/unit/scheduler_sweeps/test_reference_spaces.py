"""Search spaces of another suite, in fields of our own spec.

What that suite has for towers of a retrieval model stands here for fields that take the same kinds of values: its query
learning rate and weight decay for ours, `margin` for `preference.beta`, `num_fixed_layers` for `full.freeze_layers`,
`negative_downsampling` for `data.train_fraction`, a flag for a flag, and the second tower's rate and decay for two
further numbers.
"""

from __future__ import annotations

from typing import Any

import pytest

from services.scheduler.sweeps.space import points
from tests.unit.scheduler_sweeps.spaces import looked_at, number_of_points, plan_of, problems

FIELDS = {
    "num_fixed_layers": "full.freeze_layers",
    "query_lr": "optimization.learning_rate",
    "items_lr": "optimization.max_grad_norm",
    "query_weight_decay": "optimization.weight_decay",
    "items_weight_decay": "evaluation.min_improvement",
    "margin": "preference.beta",
    "not_irrelevant_only": "precision.deterministic",
    "negative_downsampling": "data.train_fraction",
    "examples_order": "evaluation.prompts",
}
TYPICAL: dict[str, list[Any]] = {
    "num_fixed_layers": [0, 1, 2],
    "query_lr": [0.0001, 0.0005, 0.001],
    "items_lr": [0.0001, 0.0005, 0.001],
    "query_weight_decay": [0.0, 1e-05, 0.0001],
    "items_weight_decay": [0.0, 1e-05, 0.0001],
    "margin": [0.1, 0.2, 0.5],
    "not_irrelevant_only": [True, False],
    "negative_downsampling": [0.1, 0.3, 0.5],
}
TEXT: dict[str, list[Any]] = {
    "num_fixed_layers": [0, 1],
    "query_lr": [0.0001, 0.0005],
    "items_lr": [0.0001, 0.0005],
    "query_weight_decay": [0.0, 1e-05],
    "items_weight_decay": [0.0, 1e-05],
    "margin": [0.2, 0.5],
    "not_irrelevant_only": [True],
    "negative_downsampling": [0.5],
    "examples_order": [["all examples"]],
}


def ours(space: dict[str, list[Any]]) -> dict[str, Any]:
    """Returns a space by our fields."""
    return {FIELDS.get(name, name): values for name, values in space.items()}


def test_a_typical_space_has_4374_points() -> None:
    """004-19: every point has one element of each list, and what is not searched stays as the spec has it."""
    plan = plan_of(ours(TYPICAL))
    assert number_of_points(plan) == 4374
    read, _ = looked_at(plan)
    found = list(points(read.parameters))
    assert len({tuple(sorted(point.items())) for point in found}) == 4374
    assert all(point[field] in values for point in found[::97] for field, values in ours(TYPICAL).items())


@pytest.mark.parametrize(("trials", "is_right"), [(10, True), (2, True), (0, False), (-1, False)])
def test_a_search_has_trials(trials: int, is_right: bool) -> None:
    """004-21: ten and two are taken; none and less than none are refused."""
    found = problems(plan_of(ours(TYPICAL), trials))
    assert found == ({} if is_right else {"plan.num_trials": f"is {trials}: use 1 to 10000"})


@pytest.mark.parametrize(
    ("space", "path", "words"),
    [
        ({}, "plan.parameters", "has 0 entries"),
        ({"margin": []}, "plan.parameters[0].choices.values", "has 0 entries"),
        ({"unknown_field": [1]}, "plan.parameters[0].field", "'unknown_field' is no field"),
        ({"margin": [0.2, -1.0]}, "plan.parameters[0].choices.values[1]", "preference.beta = -1.0"),
    ],
)
def test_bad_spaces_are_refused_by_their_place(space: dict[str, list[Any]], path: str, words: str) -> None:
    """004-22: no parameters, an empty list, an unknown field and a value out of its limits."""
    found = problems(plan_of(ours(space)))
    assert list(found) == [path]
    assert words in found[path]


def test_the_space_of_the_text_example_has_64_points() -> None:
    """004-23: lists with one element are fixed values, a list among the values of a field that takes lists."""
    plan = plan_of(ours(TEXT))
    assert number_of_points(plan) == 64
    read, _ = looked_at(plan)
    assert {point["evaluation.prompts"] for point in points(read.parameters)} == {("all examples",)}


def test_an_order_of_examples_is_a_list_in_a_list() -> None:
    """004-04: a list is one choice of a field that takes lists; one level less is refused with what the field takes."""
    assert problems(plan_of({"evaluation.prompts": [["a"], ["a", "b"]]})) == {}
    found = problems(plan_of({"evaluation.prompts": ["a", [7]]}))
    assert found == {
        "plan.parameters[0].choices.values[0]": "is 'a': use a list",
        "plan.parameters[0].choices.values[1]": "is [7.0]: use a string",
    }


@pytest.mark.parametrize("layers", [5, 6])
def test_values_outside_of_recommended_ranges_are_taken(layers: int) -> None:
    """004-39: what is recommended is a hint; rates of 1e-3, decays of 1e-4 and more frozen layers are fine."""
    space: dict[str, list[Any]] = {
        "query_lr": [1e-3],
        "query_weight_decay": [1e-4],
        "margin": [0.1],
        "num_fixed_layers": [layers],
    }
    assert problems(plan_of(ours(space))) == {}
