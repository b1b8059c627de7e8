"""Specs survive the way to the wire and back, whatever they hold."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from tuneforge import durations
from tuneforge.specs import wire
from tuneforge.specs.architecture import Architecture, TensorShape
from tuneforge.specs.spec import (
    ActivationRecompute,
    BaseModel,
    Checkpointing,
    ComputeType,
    ContinuedPretrainingTask,
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
    Optimizer,
    OverlongPolicy,
    PreferenceLoss,
    PreferenceTask,
    QloraMethod,
    Quantization,
    Resources,
    RewardModelTask,
    SupervisedTask,
    TrainingSpec,
    WeightFormat,
)
from tuneforge.v1 import spec_pb2

texts = st.text(min_size=1, max_size=12)
counts = st.integers(0, 2**31)
numbers = st.floats(0, 1e6)
loras = st.builds(
    LoraMethod,
    rank=counts,
    alpha=numbers,
    dropout=st.none() | numbers,
    target_modules=st.lists(texts, max_size=3).map(tuple),
    use_rslora=st.booleans(),
    use_dora=st.booleans(),
)
sources = texts.map(lambda text: DataSource(dataset=text)) | texts.map(lambda text: DataSource(local_path=text))
fulls = st.builds(FullMethod, freeze_layers=counts)
lengths: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}), numbers.map(lambda value: {"epochs": value}), counts.map(lambda value: {"max_steps": value})
)


@st.composite
def optimizations(draw: st.DrawFn) -> Optimization:
    """Any optimisation."""
    return Optimization(
        optimizer=draw(st.sampled_from(Optimizer)),
        learning_rate=draw(numbers),
        schedule=draw(st.sampled_from(LearningRateSchedule)),
        warmup_ratio=draw(st.none() | numbers),
        weight_decay=draw(st.none() | numbers),
        max_grad_norm=draw(st.none() | numbers),
        rows_per_step=draw(counts),
        rows_per_micro_batch=draw(counts),
        decay_ratio=draw(st.none() | numbers),
        decay_every_steps=draw(counts),
        decay_factor=draw(st.none() | numbers),
        recompute=draw(st.sampled_from(ActivationRecompute)),
        **draw(lengths),
    )


qloras = st.builds(QloraMethod, lora=loras, quantization=st.sampled_from(Quantization))
tasks = st.sampled_from([None, SupervisedTask(), ContinuedPretrainingTask(), RewardModelTask()]) | st.builds(
    PreferenceTask, beta=numbers, label_smoothing=numbers, loss=st.sampled_from(PreferenceLoss)
)
specs = st.builds(
    TrainingSpec,
    task=tasks,
    base=st.sampled_from(["model", "output_of_job", "local_path"]).map(lambda name: BaseModel(**{name: "x"})),
    method=st.none()
    | loras
    | st.builds(QloraMethod, lora=loras, quantization=st.sampled_from(Quantization))
    | fulls
    | st.just(MergeMethod()),
    data=st.builds(
        DataConfig,
        train=sources,
        validation=st.none() | sources,
        max_tokens=counts,
        overlong=st.none() | st.sampled_from(OverlongPolicy),
        train_fraction=numbers,
        fail_on_leak=st.booleans(),
    ),
    optimization=optimizations(),
    compute=st.sampled_from(ComputeType),
    deterministic=st.booleans(),
    checkpointing=st.builds(
        Checkpointing,
        every_steps=st.none() | counts,
        keep_last=counts,
        durable_every_steps=st.none() | counts,
        keep_best=st.booleans(),
    ),
    evaluation=st.builds(
        Evaluation,
        every_steps=counts,
        prompts=st.lists(texts, max_size=3).map(tuple),
        max_new_tokens=counts,
        patience=counts,
        min_improvement=numbers,
        use_best=st.booleans(),
        keywords=st.lists(st.lists(texts, max_size=2).map(tuple), max_size=2).map(tuple),
    ),
    resources=st.builds(
        Resources,
        nodes=counts,
        devices_per_node=st.none() | counts,
        cpu_millis=counts,
        memory_bytes=counts,
        node_labels=st.dictionaries(texts, texts, max_size=3).map(MappingProxyType),
        lost_after_s=st.none() | st.integers(0, 10**6).map(lambda millis: millis / 1000),
    ),
    output_model=st.none() | texts,
    merge=st.none() | st.builds(Merge, format=st.sampled_from(WeightFormat), min_agreement=st.none() | numbers),
    seed=st.none() | counts,
    guards=st.builds(
        Guards,
        loss_explosion_factor=st.none() | numbers,
        zero_gradient_steps=st.none() | counts,
        allow_no_effect=st.booleans(),
        stall_after_s=st.none() | st.integers(0, 10**6).map(lambda millis: millis / 1000),
        stall_ends_after_s=st.none() | st.integers(0, 10**6).map(lambda millis: millis / 1000),
    ),
)


@given(specs)
def test_spec_round_trip(spec: TrainingSpec) -> None:
    """A spec that goes over the wire comes back as it was."""
    data = wire.spec_to_proto(spec).SerializeToString()
    assert wire.spec_from_proto(spec_pb2.TrainingSpec.FromString(data)) == spec


@example(1.816)
@given(st.integers(0, 7 * 24 * 3600 * 1000).map(lambda millis: millis / 1000))
def test_duration_round_trip(seconds: float) -> None:
    """Seconds with few decimals come back as the very same float."""
    assert durations.to_seconds(durations.from_seconds(seconds)) == seconds


def test_architecture_round_trip() -> None:
    """An architecture that goes over the wire comes back as it was, and knows its size."""
    architecture = Architecture(
        class_name="LlamaForCausalLM",
        config={"hidden_size": 4, "max_position_embeddings": 32},
        tensors=(TensorShape(name="model.layers.0.self_attn.q_proj.weight", shape=(4, 4), dtype="BF16"),),
    )
    message = wire.architecture_to_proto(architecture)
    assert message.parameters == 16
    assert wire.architecture_from_proto(message) == architecture


def test_unknown_enum_numbers_are_named() -> None:
    """A number that this release does not know is reported by its path."""
    message = spec_pb2.TrainingSpec()
    message.optimization.optimizer = 77  # type: ignore[assignment]
    assert wire.unknown_enums(message) == ["optimization.optimizer"]
