"""Everything that is wrong with a spec is named at once, at both edges of each range."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tests.unit.specs.shapes import small_llama
from tuneforge.specs.defaults import with_defaults
from tuneforge.specs.spec import (
    BaseModel,
    Checkpointing,
    DataConfig,
    DataSource,
    Evaluation,
    FullMethod,
    Guards,
    LearningRateSchedule,
    LoraMethod,
    Merge,
    MergeMethod,
    Optimization,
    QloraMethod,
    Resources,
    TrainingSpec,
)
from tuneforge.specs.validation import validate

GOOD = TrainingSpec(
    base=BaseModel(model="projects/p/models/m/versions/1"),
    method=LoraMethod(rank=4),
    data=DataConfig(train=DataSource(dataset="projects/p/datasets/d/versions/1")),
)


def fields(spec: TrainingSpec, **options: bool) -> list[str]:
    """Returns the paths of the violations, the small Llama being the base."""
    return [violation.field for violation in validate(spec, small_llama(), **options)]


def test_good_spec_passes() -> None:
    """A complete spec has no violations, with and without its defaults."""
    assert fields(GOOD) == []
    assert fields(with_defaults(GOOD, small_llama())) == []


@pytest.mark.parametrize(
    ("optimization", "path"),
    [
        (Optimization(learning_rate=-1e-4), "learning_rate"),
        (Optimization(learning_rate=math.nan), "learning_rate"),
        (Optimization(learning_rate=math.inf), "learning_rate"),
        (Optimization(warmup_ratio=1.0), "warmup_ratio"),
        (Optimization(warmup_ratio=-0.01), "warmup_ratio"),
        (Optimization(weight_decay=-1), "weight_decay"),
        (Optimization(max_grad_norm=math.nan), "max_grad_norm"),
        (Optimization(rows_per_step=-1), "rows_per_step"),
        (Optimization(rows_per_step=65_537), "rows_per_step"),
        (Optimization(rows_per_micro_batch=-1), "rows_per_micro_batch"),
        (Optimization(epochs=0.0), "epochs"),
        (Optimization(epochs=math.nan), "epochs"),
        (Optimization(max_steps=0), "max_steps"),
        (Optimization(epochs=1.0, max_steps=1), "epochs"),
        (Optimization(decay_ratio=0.5), "decay_ratio"),
        (Optimization(schedule=LearningRateSchedule.WSD, decay_ratio=0.0), "decay_ratio"),
        (Optimization(schedule=LearningRateSchedule.WSD, decay_ratio=math.nan), "decay_ratio"),
        (Optimization(schedule=LearningRateSchedule.WSD, decay_ratio=0.7, warmup_ratio=0.4), "decay_ratio"),
        (Optimization(schedule=LearningRateSchedule.WSD, warmup_ratio=0.9), "decay_ratio"),
        (Optimization(schedule=LearningRateSchedule.STEP, decay_every_steps=-1), "decay_every_steps"),
        (Optimization(schedule=LearningRateSchedule.STEP, decay_factor=1.0), "decay_factor"),
        (Optimization(schedule=LearningRateSchedule.LINEAR, decay_factor=0.5), "decay_factor"),
    ],
)
def test_optimization_outside_its_range(optimization: Optimization, path: str) -> None:
    """A number outside its range is named by its path."""
    assert fields(replace(GOOD, optimization=optimization)) == [f"optimization.{path}"]


@pytest.mark.parametrize(
    "optimization",
    [
        Optimization(learning_rate=1e-9, warmup_ratio=0.0, weight_decay=0.0, max_grad_norm=0.0),
        Optimization(warmup_ratio=0.999, rows_per_step=65_536, epochs=0.01),
        Optimization(rows_per_step=1, max_steps=1),
        Optimization(schedule=LearningRateSchedule.WSD, decay_ratio=1.0, warmup_ratio=0.0),
        Optimization(schedule=LearningRateSchedule.STEP, decay_every_steps=1, decay_factor=0.001),
    ],
)
def test_optimization_at_the_edge(optimization: Optimization) -> None:
    """A number at the edge of its range passes."""
    assert fields(replace(GOOD, optimization=optimization)) == []


@pytest.mark.parametrize(
    ("lora", "path"),
    [
        (LoraMethod(rank=5), "rank"),
        (LoraMethod(rank=9, target_modules=("q_proj",)), "rank"),
        (LoraMethod(rank=-1), "rank"),
        (LoraMethod(rank=4, alpha=-1), "alpha"),
        (LoraMethod(rank=4, alpha=math.nan), "alpha"),
        (LoraMethod(rank=4, dropout=1.0), "dropout"),
        (LoraMethod(rank=4, dropout=math.nan), "dropout"),
        (LoraMethod(rank=4, target_modules=("q_proj", "query")), "target_modules[1]"),
    ],
)
def test_adapters_that_do_not_fit_the_base(lora: LoraMethod, path: str) -> None:
    """Adapters are held against the layers of the base, under the method that they belong to."""
    assert fields(replace(GOOD, method=lora)) == [f"lora.{path}"]
    assert fields(replace(GOOD, method=QloraMethod(lora=lora))) == [f"qlora.lora.{path}"]


def test_widest_adapter_that_fits() -> None:
    """The rank may be as large as the smallest side of the layers that are targeted."""
    assert fields(replace(GOOD, method=LoraMethod(rank=8, target_modules=("q_proj", "down_proj")))) == []


def test_default_rank_is_held_against_the_base_too() -> None:
    """A default that the base cannot hold is refused, filled in or not."""
    for spec in (replace(GOOD, method=LoraMethod()), with_defaults(replace(GOOD, method=LoraMethod()), small_llama())):
        assert fields(spec) == ["lora.rank"]


@pytest.mark.parametrize("tokens", [7, 131_073, 65])
def test_rows_longer_than_the_model_takes(tokens: int) -> None:
    """`max_tokens` is bounded by its range and by the base's positions."""
    assert fields(replace(GOOD, data=replace(GOOD.data, max_tokens=tokens))) == ["data.max_tokens"]


def test_a_leak_is_looked_for_between_two_sides() -> None:
    """Without rows for validation there is nothing to compare."""
    asked = replace(GOOD.data, validation=None, fail_on_leak=True)
    assert fields(replace(GOOD, data=asked)) == ["data.fail_on_leak"]
    assert not fields(replace(GOOD, data=replace(asked, validation=asked.train)))


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_of_rows_has_limits(share: float) -> None:
    """More than nothing and at most all rows."""
    assert fields(replace(GOOD, data=replace(GOOD.data, train_fraction=share))) == ["data.train_fraction"]
    assert not fields(replace(GOOD, data=replace(GOOD.data, train_fraction=1.0)))


def test_local_paths_need_an_unmanaged_trainer() -> None:
    """Local paths are refused by default and allowed where the caller says so."""
    local = replace(
        GOOD, base=BaseModel(local_path="model"), data=DataConfig(train=DataSource(local_path="rows.jsonl"))
    )
    assert fields(local) == ["base.local_path", "data.train.local_path"]
    assert fields(local, allow_local_paths=True) == []


@pytest.mark.parametrize(
    ("evaluation", "paths"),
    [
        (Evaluation(patience=1), ["patience", "patience"]),
        (Evaluation(use_best=True, every_steps=2), ["use_best"]),
        (Evaluation(min_improvement=math.inf), ["min_improvement"]),
        (Evaluation(min_improvement=-0.1), ["min_improvement"]),
        (Evaluation(patience=-1), ["patience"]),
    ],
)
def test_the_best_of_a_run_needs_a_validation_loss(evaluation: Evaluation, paths: list[str]) -> None:
    """Without rows to validate on, or without evaluations in the run, there is no best one to wait for."""
    assert fields(replace(GOOD, evaluation=evaluation)) == [f"evaluation.{path}" for path in paths]


def test_all_faults_are_named_in_one_answer() -> None:
    """A spec with several faults gets one answer with all of them."""
    spec = TrainingSpec(
        task=None,
        method=None,
        optimization=Optimization(learning_rate=math.nan, max_steps=0),
        checkpointing=Checkpointing(keep_last=-1, durable_every_steps=-1),
        evaluation=Evaluation(prompts=(" ",) * 17, max_new_tokens=513),
        resources=Resources(nodes=65, devices_per_node=4, lost_after_s=0.5),
    )
    found = set(fields(spec))
    assert found >= {
        "base",
        "task",
        "method",
        "data.train",
        "optimization.learning_rate",
        "optimization.max_steps",
        "checkpointing.keep_last",
        "checkpointing.durable_every_steps",
        "evaluation.prompts",
        "evaluation.prompts[16]",
        "evaluation.max_new_tokens",
        "resources.nodes",
        "resources.devices_per_node",
        "resources.lost_after",
    }


def test_violation_says_value_and_cure() -> None:
    """The sentence has the value that is wrong, the layer and the largest value that works."""
    (violation,) = validate(replace(GOOD, method=LoraMethod(rank=64)), small_llama())
    assert "64" in violation.description
    assert "use at most 4" in violation.description


def test_two_sources_are_refused() -> None:
    """A base or a data source with two sources is refused, naming both."""
    both = BaseModel(model="a", output_of_job="b")
    source = DataSource(dataset="a", local_path="b")
    assert fields(replace(GOOD, base=both, data=DataConfig(train=source))) == ["base", "data.train"]


def test_full_method_has_no_adapters() -> None:
    """Full fine-tuning passes without any adapter field."""
    assert fields(replace(GOOD, method=FullMethod())) == []


@pytest.mark.parametrize(
    ("guards", "path"),
    [
        (Guards(loss_explosion_factor=1.0), "loss_explosion_factor"),
        (Guards(loss_explosion_factor=-2.0), "loss_explosion_factor"),
        (Guards(loss_explosion_factor=math.nan), "loss_explosion_factor"),
        (Guards(zero_gradient_steps=-1), "zero_gradient_steps"),
        (Guards(stall_after_s=0.5), "stall_after"),
        (Guards(stall_after_s=604_801.0), "stall_after"),
        (Guards(stall_ends_after_s=math.nan), "stall_ends_after"),
        (Guards(stall_after_s=60.0, stall_ends_after_s=59.0), "stall_ends_after"),
        (Guards(stall_ends_after_s=599.0), "stall_ends_after"),
    ],
)
def test_guards_outside_their_range(guards: Guards, path: str) -> None:
    """A guard outside its range is named by its path; the end of a stall does not come before its beginning."""
    assert fields(replace(GOOD, guards=guards)) == [f"guards.{path}"]


def test_a_long_patience_moves_the_end_of_a_stall() -> None:
    """Only `stall_after` given, and longer than the default end: the end moves with it."""
    guards = Guards(loss_explosion_factor=0, zero_gradient_steps=0, stall_after_s=7200.0)
    assert fields(replace(GOOD, guards=guards)) == []
    assert with_defaults(replace(GOOD, guards=guards)).guards.stall_ends_after_s == 7200.0


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        (replace(GOOD, merge=Merge(min_agreement=0.0)), None),
        (replace(GOOD, merge=Merge(min_agreement=1.0)), None),
        (replace(GOOD, merge=Merge(min_agreement=1.01)), "output.merge.min_agreement"),
        (replace(GOOD, merge=Merge(min_agreement=-0.01)), "output.merge.min_agreement"),
        (replace(GOOD, merge=Merge(min_agreement=math.nan)), "output.merge.min_agreement"),
        (replace(GOOD, method=FullMethod(), merge=Merge()), "output.merge"),
        (replace(GOOD, method=MergeMethod()), None),
    ],
)
def test_a_merge_is_for_adapters_and_has_a_share(spec: TrainingSpec, path: str | None) -> None:
    """The least agreement is a share, and a run that moves every weight has nothing to merge."""
    assert fields(spec) == ([path] if path else [])


def test_a_merge_has_its_defaults() -> None:
    """The least agreement is 99.5 %; without a merge there is none."""
    assert with_defaults(GOOD).merge is None
    assert with_defaults(replace(GOOD, merge=Merge())).merge == Merge(min_agreement=0.995)
    assert with_defaults(replace(GOOD, method=MergeMethod())).merge == Merge(min_agreement=0.995)


@pytest.mark.parametrize(
    ("keywords", "path"),
    [
        ((("cat",), ()), None),
        ((("cat",),), "evaluation.keywords"),
        ((("cat",), ("",)), "evaluation.keywords[1].any_of"),
        ((("a" * 201,), ()), "evaluation.keywords[0].any_of"),
        ((("a",) * 51, ()), "evaluation.keywords[0].any_of"),
    ],
)
def test_keywords_stand_beside_prompts(keywords: tuple[tuple[str, ...], ...], path: str | None) -> None:
    """There is an entry for each prompt or none, and words have letters."""
    evaluation = Evaluation(prompts=("one", "two"), keywords=keywords)
    assert fields(replace(GOOD, evaluation=evaluation)) == ([path] if path else [])
