"""Reference cases of what a spec says and what is refused of it: 001-05, 001-08, 001-15 to 001-18, 001-35."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.event_loop import on_loop
from tests.support.fake_registry import BASE
from tests.support.scheduling import staged, tiny_spec
from tuneforge._spec_input import read_spec
from tuneforge.errors import InvalidArgument
from tuneforge.specs.validation import validate
from tuneforge.specs.wire import spec_from_proto
from tuneforge.v1 import spec_pb2

GOOD: Mapping[str, Any] = {
    "base": {"model": "tiny/1"},
    "supervised": {},
    "lora": {},
    "data": {"train": {"dataset": "rows"}},
}


def problems(**changes: object) -> dict[str, str]:
    """Returns field -> what is wrong of the good spec with some fields in place of others.

    What the service can name it names: the client sends it on.
    """
    try:
        sent = read_spec({**GOOD, **changes}, "p")
    except InvalidArgument as error:
        return {each.field: each.description for each in error.fields}
    return {each.field: each.description for each in validate(spec_from_proto(sent))}


@on_loop
async def test_a_stored_model_and_defaults_are_enough(tmp_path: Path) -> None:
    """001-05, 001-08: no other name is needed, and every default stands in the spec that the job answers with."""
    async with staged(tmp_path) as stage:
        job = await stage.create("named", spec=tiny_spec())
        assert (job.spec.base.model, job.base.version) == (BASE, BASE)
        chosen = job.spec.optimization
        assert (chosen.epochs, chosen.rows_per_step, chosen.learning_rate) == (3.0, 8, 2e-4)
        assert (chosen.optimizer, chosen.schedule) == (
            spec_pb2.OPTIMIZER_ADAMW,
            spec_pb2.LEARNING_RATE_SCHEDULE_COSINE,
        )


@on_loop
async def test_a_rate_that_is_not_smaller_than_the_bases_is_told(tmp_path: Path) -> None:
    """001-35: ten times smaller is fine, the same is a warning and no error; an adapter leaves the weights alone."""
    async with staged(tmp_path) as stage:
        first = stage.registry.models[BASE].lineage.spec
        first.full.SetInParent()
        first.optimization.learning_rate = 1e-3
        for number, (rate, is_full, is_warned) in enumerate(
            [(1e-4, True, False), (1e-5, True, False), (1e-3, True, True), (0.0, True, False), (1e-3, False, False)]
        ):
            spec = tiny_spec(optimization=spec_pb2.Optimization(learning_rate=rate))
            if is_full:
                spec.full.SetInParent()
            job = await stage.create(f"j{number}", spec=spec)
            assert [("1e-05 to 0.0001" in words) for words in job.warnings] == [True] * is_warned, (rate, job.warnings)
            assert list((await stage.get(job.name.rpartition("/")[2])).warnings) == list(job.warnings)


@pytest.mark.parametrize("framework", ["pytorch", "tensorflow", "huggingface", "jax"])
def test_a_framework_is_not_asked_for(framework: str) -> None:
    """001-15: what no trainer runs is not accepted: the field does not exist, and the answer lists those that do."""
    assert "there are base, supervised" in problems(framework=framework)["framework"]


@pytest.mark.parametrize(
    ("task", "is_right"),
    [("supervised", True), ("continued_pretraining", True), ("evaluate", False), (None, False)],
    ids=lambda each: str(each),
)
def test_a_task_is_one_of_four(task: str | None, is_right: bool) -> None:
    """001-16: another word, or none, is told which there are."""
    found = problems(**{"supervised": None, **({task: {}} if task else {})})
    assert ("task" in found) is not is_right
    assert is_right or "`supervised`, `continued_pretraining`, `preference`, `reward_model`" in found["task"]


@pytest.mark.parametrize("value", [1, 0, -1, "10", 0.5, math.nan, math.inf, True], ids=str)
@pytest.mark.parametrize("field", ["epochs", "rows_per_step", "learning_rate"])
def test_numbers_are_above_nothing(field: str, value: object) -> None:
    """001-17: text and truth values are no numbers, counts are whole; a pass may be half; 0 is the stated default."""
    is_default = value == 0 and field != "epochs"
    is_right = is_default or (value == 1 and value is not True) or (value == 0.5 and field != "rows_per_step")
    found = problems(optimization={field: value})
    assert list(found) == ([] if is_right else [f"optimization.{field}"]), found
    assert all(": use " in description for description in found.values())


def test_three_wrong_numbers_are_one_answer() -> None:
    """001-18: all three, each with its value."""
    found = problems(optimization={"epochs": 0, "rows_per_step": -4, "learning_rate": -0.1})
    assert {field: words.partition(":")[0] for field, words in found.items()} == {
        "optimization.epochs": "is 0.0",
        "optimization.rows_per_step": "is -4",
        "optimization.learning_rate": "is -0.1",
    }
