"""What a task asks of the rest of a spec, and which defaults it brings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tuneforge.specs.defaults import with_defaults
from tuneforge.specs.spec import (
    BaseModel,
    ContinuedPretrainingTask,
    DataConfig,
    DataSource,
    Evaluation,
    FullMethod,
    LoraMethod,
    Merge,
    OverlongPolicy,
    PreferenceLoss,
    PreferenceTask,
    QloraMethod,
    Quantization,
    Resources,
    RewardModelTask,
    SupervisedTask,
    Task,
    TrainingSpec,
)
from tuneforge.specs.task_rules import task_violations
from tuneforge.specs.validation import validate

SPEC = TrainingSpec(
    base=BaseModel(model="projects/p/models/m/versions/1"),
    method=LoraMethod(),
    data=DataConfig(train=DataSource(dataset="projects/p/datasets/d/versions/1")),
)


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"task": None}, "task", "`reward_model`"),
        ({"task": PreferenceTask(beta=-1.0)}, "preference.beta", "-1.0"),
        ({"task": PreferenceTask(beta=float("nan"))}, "preference.beta", "nan"),
        ({"task": PreferenceTask(label_smoothing=0.5)}, "preference.label_smoothing", "less than 0.5"),
        ({"task": PreferenceTask(label_smoothing=0.1, loss=PreferenceLoss.IPO)}, "preference.label_smoothing", "ipo"),
        ({"data": replace(SPEC.data, overlong=OverlongPolicy.SPLIT)}, "data.overlong", "continued_pretraining"),
        (
            {"method": QloraMethod(lora=LoraMethod(use_dora=True), quantization=Quantization.INT8)},
            "qlora.lora.use_dora",
            "int8",
        ),
        ({"method": QloraMethod(quantization=Quantization.INT8), "merge": Merge()}, "output.merge", "`int8`"),
        ({"task": RewardModelTask(), "merge": Merge()}, "output.merge", "reward_model"),
        (
            {"task": RewardModelTask(), "evaluation": Evaluation(prompts=("Say.",))},
            "evaluation.prompts",
            "writes no text",
        ),
    ],
)
def test_what_does_not_go_together_is_named(changes: dict[str, Any], field: str, says: str) -> None:
    """One thing is wrong, and the answer names its field and what to do."""
    (found,) = validate(replace(SPEC, **changes))
    assert found.field == field
    assert says in found.description


@pytest.mark.parametrize(
    "task",
    [
        SupervisedTask(),
        ContinuedPretrainingTask(),
        PreferenceTask(beta=0.5, label_smoothing=0.1),
        PreferenceTask(loss=PreferenceLoss.IPO),
        RewardModelTask(),
    ],
)
def test_every_task_can_be_asked_for(task: Task) -> None:
    """With its defaults, too."""
    spec = replace(SPEC, task=task)
    assert validate(spec) == []
    assert validate(with_defaults(spec)) == []


@pytest.mark.parametrize(
    ("task", "adapters", "full", "epochs", "overlong"),
    [
        (SupervisedTask(), 2e-4, 2e-5, 3.0, OverlongPolicy.DROP),
        (ContinuedPretrainingTask(), 2e-4, 2e-5, 1.0, OverlongPolicy.SPLIT),
        (PreferenceTask(), 1e-5, 1e-6, 1.0, OverlongPolicy.DROP),
        (RewardModelTask(), 1e-4, 1e-5, 1.0, OverlongPolicy.DROP),
    ],
)
def test_defaults_are_those_of_the_task(
    task: Task, adapters: float, full: float, epochs: float, overlong: OverlongPolicy
) -> None:
    """Rate, passes and what happens to long rows; what was asked for stays."""
    found = with_defaults(replace(SPEC, task=task))
    assert found.optimization.learning_rate == adapters
    assert found.optimization.epochs == epochs
    assert found.data.overlong is overlong
    assert with_defaults(replace(SPEC, task=task, method=FullMethod())).optimization.learning_rate == full
    asked = replace(SPEC, task=task, data=replace(SPEC.data, overlong=OverlongPolicy.REFUSE))
    assert with_defaults(asked).data.overlong is OverlongPolicy.REFUSE


@pytest.mark.parametrize("task", [PreferenceTask(), RewardModelTask()])
def test_pairs_are_learned_in_one_process(task: Task) -> None:
    """Several processes are refused for them, by the field that asks for these."""
    spec = replace(SPEC, task=task, resources=Resources(nodes=2, devices_per_node=4))
    assert [each.field for each in task_violations(spec)] == ["resources.nodes", "resources.devices_per_node"]
    assert not list(task_violations(replace(spec, task=SupervisedTask())))


def test_beta_has_a_default() -> None:
    """0 is no distance to a reference: it stands for the default."""
    assert with_defaults(replace(SPEC, task=PreferenceTask())).task == PreferenceTask(beta=0.1)
