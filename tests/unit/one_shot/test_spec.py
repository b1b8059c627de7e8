"""From settings, base and rows to the spec of a job."""

from __future__ import annotations

from typing import Any

import pytest

from tuneforge._spec_input import read_spec
from tuneforge.dataset_values import DatasetVersion, version_of
from tuneforge.model_values import ModelVersion, version_from_proto
from tuneforge.names import is_id
from tuneforge.one_shot.settings import RunSettings, SettingsFault
from tuneforge.one_shot.spec import plan_job, resource_id, warmup_ratio
from tuneforge.specs.spec import Architecture, ComputeType, LoraMethod, OverlongPolicy, QloraMethod, TensorShape
from tuneforge.specs.wire import architecture_to_proto, spec_from_proto
from tuneforge.v1 import datasets_pb2, models_pb2

LLAMA = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj")
GPT2 = ("attn.c_attn", "attn.c_proj")


def base(*layers: str, positions: int = 4096) -> ModelVersion:
    """Returns a version of a model with these linear layers."""
    tensors = tuple(TensorShape(name=f"model.layers.0.{layer}.weight", shape=(8, 8), dtype="F32") for layer in layers)
    architecture = Architecture(class_name="X", config={"max_position_embeddings": positions}, tensors=tensors)
    message = models_pb2.ModelVersion(name="projects/default/models/base/versions/1")
    message.architecture.CopyFrom(architecture_to_proto(architecture))
    return version_from_proto(message)


def rows(train: int = 1000, validation: int = 0) -> DatasetVersion:
    """Returns a version of so many rows."""
    message = datasets_pb2.DatasetVersion(name="projects/default/datasets/rows/versions/2", rows=train + validation)
    message.statistics.train_rows, message.statistics.validation_rows = train, validation
    return version_of(message)


def planned(settings: RunSettings, model: ModelVersion | None = None, data: DatasetVersion | None = None) -> Any:
    """Returns the spec, read as the scheduler's client reads it, and the notes."""
    plan = plan_job(settings, model or base(*LLAMA), data or rows(), "out")
    return spec_from_proto(read_spec(plan.spec, "default")), plan.notes


def test_the_defaults_make_a_spec_that_is_valid() -> None:
    """Adapters on the four layers of attention, rows cut to 2048 tokens, bfloat16 where it can be."""
    spec, notes = planned(RunSettings())
    assert spec.method == LoraMethod(
        rank=16, alpha=32.0, dropout=0.05, target_modules=("q_proj", "v_proj", "k_proj", "o_proj")
    )
    assert (spec.data.max_tokens, spec.data.overlong) == (2048, OverlongPolicy.TRUNCATE)
    assert (spec.optimization.rows_per_step, spec.optimization.rows_per_micro_batch) == (4, 4)
    assert (spec.compute, spec.seed, spec.data.validation) == (ComputeType.AUTO, 42, None)
    assert (spec.checkpointing.every_steps, spec.checkpointing.keep_last) == (500, 3)
    assert notes == ()


def test_quantised_and_full() -> None:
    """The other methods have the same adapters, or none."""
    assert isinstance(planned(RunSettings(method="qlora"))[0].method, QloraMethod)
    spec, _ = planned(RunSettings(method="full", gradient_checkpointing=True))
    assert spec.lora is None
    assert (spec.optimization.learning_rate, spec.optimization.recompute.value) == (2e-5, "full")


def test_accumulated_rows_make_a_step() -> None:
    """Batches times accumulation."""
    spec, _ = planned(RunSettings(batch_size=2, gradient_accumulation_steps=8))
    assert (spec.optimization.rows_per_step, spec.optimization.rows_per_micro_batch) == (16, 2)


def test_rows_that_are_held_back_are_measured_on() -> None:
    """The same version names both sides; evaluations come at their pace."""
    spec, _ = planned(RunSettings(eval_steps=7), data=rows(90, 10))
    assert spec.data.validation == spec.data.train
    assert spec.evaluation.every_steps == 7
    spec, notes = planned(RunSettings(eval_steps=7))
    assert spec.evaluation.every_steps == 0
    assert "nothing to evaluate on" in notes[0]


def test_a_model_with_other_layers_gets_adapters_on_all() -> None:
    """And it is said which."""
    spec, notes = planned(RunSettings(), base(*GPT2))
    assert spec.lora.target_modules == ()
    assert "c_attn, c_proj" in notes[0]
    spec, notes = planned(RunSettings(target_modules=("c_attn",)), base(*GPT2))
    assert (spec.lora.target_modules, notes) == (("c_attn",), ())


def test_a_short_model_bounds_the_default_length_only() -> None:
    """What was asked for goes to the scheduler as it is, which refuses it with the limit."""
    assert planned(RunSettings(), base(*LLAMA, positions=512))[0].data.max_tokens == 512
    assert planned(RunSettings(max_seq_length=1024), base(*LLAMA, positions=512))[0].data.max_tokens == 1024


@pytest.mark.parametrize(
    ("warmup", "steps", "share"), [(None, 10, 0.05), (None, 10_000, 0.01), (5, 50, 0.1), (0, 50, 0.0)]
)
def test_warm_up(warmup: int | None, steps: int, share: float) -> None:
    """By default 5 percent and at most 100 steps."""
    assert warmup_ratio(RunSettings(warmup_steps=warmup), steps) == share


def test_a_warm_up_longer_than_the_run_is_refused() -> None:
    """It would never reach its rate."""
    with pytest.raises(SettingsFault, match="about 50 steps"):
        warmup_ratio(RunSettings(warmup_steps=50), 50)


def test_a_short_run_saves_its_last_step() -> None:
    """However far away the pace of checkpoints is."""
    assert planned(RunSettings(epochs=1), data=rows(22))[0].checkpointing.every_steps == 6
    assert planned(RunSettings(epochs=2.5), data=rows(22))[0].checkpointing.every_steps == 6 + 6 + 3


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2-5-7b-instruct"),
        ("hf://owner/Name@main", "name"),
        ("./models/tiny llama/", "tiny-llama"),
        ("/data/7b", "m-7b"),
        ("---", "m"),
        ("x" * 200, "x" * 48),
        ("Ünï", "n"),
    ],
)
def test_ids_are_made_of_what_people_write(text: str, found: str) -> None:
    """Whatever it is, the id is one."""
    assert resource_id(text) == found
    assert is_id(resource_id(text))
