"""Flags of `jobs submit`: where their values stand in a spec."""

from typing import Any

import pytest

from tuneforge._spec_input import read_spec
from tuneforge.cli.submit import submit, with_flags
from tuneforge.specs.spec import (
    ContinuedPretrainingTask,
    PreferenceLoss,
    PreferenceTask,
    RewardModelTask,
    SupervisedTask,
    Task,
)
from tuneforge.specs.wire import spec_from_proto


def task_of(content: dict[str, Any], *arguments: str) -> Task | None:
    """Returns the task of a spec with flags on top, as a service would read it."""
    flags = submit.make_context("submit", list(arguments)).params
    whole = with_flags(content, flags) | {"base": {"model": "m/1"}, "data": {"train": {"dataset": "d"}}}
    return spec_from_proto(read_spec(whole, "default")).task


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), SupervisedTask()),
        (("--task", "sft"), SupervisedTask()),
        (("--task", "pretrain"), ContinuedPretrainingTask()),
        (("--task", "reward"), RewardModelTask()),
        (("--task", "preference"), PreferenceTask()),
        (
            ("--task", "dpo", "--beta", "0.2", "--label-smoothing", "0.1"),
            PreferenceTask(beta=0.2, label_smoothing=0.1),
        ),
        (("--task", "dpo", "--preference-loss", "ipo"), PreferenceTask(loss=PreferenceLoss.IPO)),
    ],
)
def test_a_task_has_a_short_and_a_whole_name(arguments: tuple[str, ...], expected: Task) -> None:
    """The names of the field and those that people use mean the same."""
    assert task_of({}, *arguments) == expected


def test_a_flag_takes_the_place_of_the_file_s_task() -> None:
    """Without a flag the file's task stays, and its other fields beside a flag."""
    written = {"preference": {"beta": 0.3}}
    assert task_of(dict(written)) == PreferenceTask(beta=0.3)
    assert task_of({"preference": {"beta": 0.3}}, "--label-smoothing", "0.1") == PreferenceTask(
        beta=0.3, label_smoothing=0.1
    )
    assert task_of(dict(written), "--task", "reward") == RewardModelTask()
