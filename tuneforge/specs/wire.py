"""Training specs and architectures: message <-> dataclass."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

from tuneforge import durations
from tuneforge.specs.architecture import Architecture, TensorShape
from tuneforge.specs.spec import (
    ActivationRecompute,
    BaseModel,
    Checkpointing,
    ComputeType,
    DataConfig,
    DataSource,
    Evaluation,
    Guards,
    LearningRateSchedule,
    Merge,
    Optimization,
    Optimizer,
    OverlongPolicy,
    Resources,
    TrainingSpec,
    WeightFormat,
)
from tuneforge.specs.task_wire import (
    PREFERENCE_LOSSES,
    QUANTIZATIONS,
    method_from_proto,
    put_method,
    put_task,
    task_from_proto,
)
from tuneforge.v1 import models_pb2, spec_pb2

_OVERLONG = {
    spec_pb2.OVERLONG_POLICY_UNSPECIFIED: None,
    spec_pb2.OVERLONG_POLICY_DROP: OverlongPolicy.DROP,
    spec_pb2.OVERLONG_POLICY_TRUNCATE: OverlongPolicy.TRUNCATE,
    spec_pb2.OVERLONG_POLICY_REFUSE: OverlongPolicy.REFUSE,
    spec_pb2.OVERLONG_POLICY_SPLIT: OverlongPolicy.SPLIT,
}
_OPTIMIZER = {
    spec_pb2.OPTIMIZER_UNSPECIFIED: Optimizer.ADAMW,
    spec_pb2.OPTIMIZER_ADAMW: Optimizer.ADAMW,
    spec_pb2.OPTIMIZER_SGD: Optimizer.SGD,
    spec_pb2.OPTIMIZER_ADAMW_8BIT: Optimizer.ADAMW_8BIT,
    spec_pb2.OPTIMIZER_PAGED_ADAMW: Optimizer.PAGED_ADAMW,
    spec_pb2.OPTIMIZER_PAGED_ADAMW_8BIT: Optimizer.PAGED_ADAMW_8BIT,
    spec_pb2.OPTIMIZER_ADAFACTOR: Optimizer.ADAFACTOR,
}
_SCHEDULE = {
    spec_pb2.LEARNING_RATE_SCHEDULE_UNSPECIFIED: LearningRateSchedule.COSINE,
    spec_pb2.LEARNING_RATE_SCHEDULE_COSINE: LearningRateSchedule.COSINE,
    spec_pb2.LEARNING_RATE_SCHEDULE_LINEAR: LearningRateSchedule.LINEAR,
    spec_pb2.LEARNING_RATE_SCHEDULE_CONSTANT: LearningRateSchedule.CONSTANT,
    spec_pb2.LEARNING_RATE_SCHEDULE_WSD: LearningRateSchedule.WSD,
    spec_pb2.LEARNING_RATE_SCHEDULE_STEP: LearningRateSchedule.STEP,
}
_RECOMPUTE = {
    spec_pb2.ACTIVATION_RECOMPUTE_UNSPECIFIED: ActivationRecompute.AUTO,
    spec_pb2.ACTIVATION_RECOMPUTE_AUTO: ActivationRecompute.AUTO,
    spec_pb2.ACTIVATION_RECOMPUTE_NONE: ActivationRecompute.NONE,
    spec_pb2.ACTIVATION_RECOMPUTE_SELECTIVE: ActivationRecompute.SELECTIVE,
    spec_pb2.ACTIVATION_RECOMPUTE_FULL: ActivationRecompute.FULL,
}
_COMPUTE = {
    spec_pb2.COMPUTE_TYPE_UNSPECIFIED: ComputeType.AUTO,
    spec_pb2.COMPUTE_TYPE_AUTO: ComputeType.AUTO,
    spec_pb2.COMPUTE_TYPE_BF16: ComputeType.BF16,
    spec_pb2.COMPUTE_TYPE_FP32: ComputeType.FP32,
    spec_pb2.COMPUTE_TYPE_FP16: ComputeType.FP16,
}
_FORMAT = {
    spec_pb2.WEIGHT_FORMAT_UNSPECIFIED: WeightFormat.STORED,
    spec_pb2.WEIGHT_FORMAT_STORED: WeightFormat.STORED,
    spec_pb2.WEIGHT_FORMAT_FP32: WeightFormat.FP32,
    spec_pb2.WEIGHT_FORMAT_BF16: WeightFormat.BF16,
    spec_pb2.WEIGHT_FORMAT_FP16: WeightFormat.FP16,
}
# The other direction; of two numbers for one value the later one, which is not UNSPECIFIED, stays.
_OVERLONG_NUMBER = {value: number for number, value in _OVERLONG.items()}
_OPTIMIZER_NUMBER = {value: number for number, value in _OPTIMIZER.items()}
_SCHEDULE_NUMBER = {value: number for number, value in _SCHEDULE.items()}
_RECOMPUTE_NUMBER = {value: number for number, value in _RECOMPUTE.items()}
_COMPUTE_NUMBER = {value: number for number, value in _COMPUTE.items()}
_FORMAT_NUMBER = {value: number for number, value in _FORMAT.items()}


def unknown_enums(message: spec_pb2.TrainingSpec) -> list[str]:
    """Returns the paths of enum fields whose number this release does not know; they would not convert."""
    fields: dict[str, tuple[Any, dict[Any, Any]]] = {
        "qlora.quantization": (message.qlora.quantization, QUANTIZATIONS),
        "preference.loss": (message.preference.loss, PREFERENCE_LOSSES),
        "data.overlong": (message.data.overlong, _OVERLONG),
        "optimization.optimizer": (message.optimization.optimizer, _OPTIMIZER),
        "optimization.schedule": (message.optimization.schedule, _SCHEDULE),
        "optimization.recompute": (message.optimization.recompute, _RECOMPUTE),
        "precision.compute": (message.precision.compute, _COMPUTE),
        "output.merge.format": (message.output.merge.format, _FORMAT),
    }
    return [path for path, (number, known) in fields.items() if number not in known]


def spec_from_proto(message: spec_pb2.TrainingSpec) -> TrainingSpec:
    """Converts a message to a spec. An enum number that is not known becomes its default; see `unknown_enums`."""
    return TrainingSpec(
        base=_base_from_proto(message.base),
        task=task_from_proto(message),
        method=method_from_proto(message),
        data=_data_from_proto(message.data),
        optimization=_optimization_from_proto(message.optimization),
        compute=_COMPUTE.get(message.precision.compute, ComputeType.AUTO),
        deterministic=message.precision.deterministic,
        checkpointing=Checkpointing(
            every_steps=message.checkpointing.every_steps if message.checkpointing.HasField("every_steps") else None,
            keep_last=message.checkpointing.keep_last,
            durable_every_steps=message.checkpointing.durable_every_steps
            if message.checkpointing.HasField("durable_every_steps")
            else None,
            keep_best=message.checkpointing.keep_best,
        ),
        evaluation=Evaluation(
            every_steps=message.evaluation.every_steps,
            prompts=tuple(message.evaluation.prompts),
            max_new_tokens=message.evaluation.max_new_tokens,
            patience=message.evaluation.patience,
            min_improvement=message.evaluation.min_improvement,
            use_best=message.evaluation.use_best,
            keywords=tuple(tuple(each.any_of) for each in message.evaluation.keywords),
        ),
        resources=_resources_from_proto(message.resources),
        output_model=message.output.model or None,
        merge=_merge_from_proto(message.output.merge) if message.output.HasField("merge") else None,
        seed=message.seed if message.HasField("seed") else None,
        guards=_guards_from_proto(message.guards),
    )


def _base_from_proto(message: spec_pb2.BaseModel) -> BaseModel:
    source = message.WhichOneof("source")
    return BaseModel() if source is None else BaseModel(**{source: getattr(message, source)})


def _source_from_proto(message: spec_pb2.DataSource) -> DataSource:
    source = message.WhichOneof("source")
    return DataSource() if source is None else DataSource(**{source: getattr(message, source)})


def _merge_from_proto(message: spec_pb2.Merge) -> Merge:
    return Merge(
        format=_FORMAT.get(message.format, WeightFormat.STORED),
        min_agreement=message.min_agreement if message.HasField("min_agreement") else None,
    )


def _data_from_proto(message: spec_pb2.DataConfig) -> DataConfig:
    return DataConfig(
        train=_source_from_proto(message.train),
        validation=_source_from_proto(message.validation) if message.HasField("validation") else None,
        max_tokens=message.max_tokens,
        overlong=_OVERLONG.get(message.overlong),
        train_fraction=message.train_fraction,
        fail_on_leak=message.fail_on_leak,
    )


def _optimization_from_proto(message: spec_pb2.Optimization) -> Optimization:
    length = message.WhichOneof("length")
    return Optimization(
        optimizer=_OPTIMIZER.get(message.optimizer, Optimizer.ADAMW),
        learning_rate=message.learning_rate,
        schedule=_SCHEDULE.get(message.schedule, LearningRateSchedule.COSINE),
        warmup_ratio=message.warmup_ratio if message.HasField("warmup_ratio") else None,
        weight_decay=message.weight_decay if message.HasField("weight_decay") else None,
        max_grad_norm=message.max_grad_norm if message.HasField("max_grad_norm") else None,
        rows_per_step=message.rows_per_step,
        rows_per_micro_batch=message.rows_per_micro_batch,
        epochs=message.epochs if length == "epochs" else None,
        max_steps=message.max_steps if length == "max_steps" else None,
        decay_ratio=message.decay_ratio if message.HasField("decay_ratio") else None,
        decay_every_steps=message.decay_every_steps,
        decay_factor=message.decay_factor if message.HasField("decay_factor") else None,
        recompute=_RECOMPUTE.get(message.recompute, ActivationRecompute.AUTO),
    )


def _resources_from_proto(message: spec_pb2.Resources) -> Resources:
    lost_after = message.lost_after
    return Resources(
        nodes=message.nodes,
        devices_per_node=message.devices_per_node if message.HasField("devices_per_node") else None,
        cpu_millis=message.cpu_millis,
        memory_bytes=message.memory_bytes,
        node_labels=MappingProxyType(dict(message.node_labels)),
        lost_after_s=durations.to_seconds(lost_after) if message.HasField("lost_after") else None,
    )


def _guards_from_proto(message: spec_pb2.Guards) -> Guards:
    after, ends_after = message.stall_after, message.stall_ends_after
    return Guards(
        loss_explosion_factor=message.loss_explosion_factor if message.HasField("loss_explosion_factor") else None,
        zero_gradient_steps=message.zero_gradient_steps if message.HasField("zero_gradient_steps") else None,
        allow_no_effect=message.allow_no_effect,
        stall_after_s=durations.to_seconds(after) if message.HasField("stall_after") else None,
        stall_ends_after_s=durations.to_seconds(ends_after) if message.HasField("stall_ends_after") else None,
    )


def _guards_to_proto(guards: Guards) -> spec_pb2.Guards:
    message = spec_pb2.Guards(
        loss_explosion_factor=guards.loss_explosion_factor,
        zero_gradient_steps=guards.zero_gradient_steps,
        allow_no_effect=guards.allow_no_effect,
    )
    if guards.stall_after_s is not None:
        message.stall_after.CopyFrom(durations.from_seconds(guards.stall_after_s))
    if guards.stall_ends_after_s is not None:
        message.stall_ends_after.CopyFrom(durations.from_seconds(guards.stall_ends_after_s))
    return message


def spec_to_proto(spec: TrainingSpec) -> spec_pb2.TrainingSpec:
    """Converts a spec to its message.

    Raises:
        ValueError: A number does not fit its field (e.g. a negative rank); `validation.validate` names it.
    """
    message = spec_pb2.TrainingSpec(
        data=_data_to_proto(spec.data),
        optimization=_optimization_to_proto(spec.optimization),
        precision=spec_pb2.Precision(compute=_COMPUTE_NUMBER[spec.compute], deterministic=spec.deterministic),
        checkpointing=spec_pb2.Checkpointing(
            every_steps=spec.checkpointing.every_steps,
            keep_last=spec.checkpointing.keep_last,
            durable_every_steps=spec.checkpointing.durable_every_steps,
            keep_best=spec.checkpointing.keep_best,
        ),
        evaluation=spec_pb2.Evaluation(
            every_steps=spec.evaluation.every_steps,
            prompts=spec.evaluation.prompts,
            max_new_tokens=spec.evaluation.max_new_tokens,
            patience=spec.evaluation.patience,
            min_improvement=spec.evaluation.min_improvement,
            use_best=spec.evaluation.use_best,
            keywords=[spec_pb2.Keywords(any_of=words) for words in spec.evaluation.keywords],
        ),
        resources=_resources_to_proto(spec.resources),
        seed=spec.seed,
    )
    for source in ("model", "output_of_job", "local_path"):
        if (value := getattr(spec.base, source)) is not None:
            setattr(message.base, source, value)
    if spec.output_model is not None:
        message.output.model = spec.output_model
    if spec.guards != Guards():
        message.guards.CopyFrom(_guards_to_proto(spec.guards))
    if spec.merge is not None:
        message.output.merge.CopyFrom(
            spec_pb2.Merge(format=_FORMAT_NUMBER[spec.merge.format], min_agreement=spec.merge.min_agreement)
        )
    put_task(message, spec.task)
    put_method(message, spec.method)
    return message


def _source_to_proto(source: DataSource) -> spec_pb2.DataSource:
    message = spec_pb2.DataSource()
    for field in ("dataset", "local_path"):
        if (value := getattr(source, field)) is not None:
            setattr(message, field, value)
    return message


def _data_to_proto(data: DataConfig) -> spec_pb2.DataConfig:
    return spec_pb2.DataConfig(
        train=_source_to_proto(data.train),
        validation=None if data.validation is None else _source_to_proto(data.validation),
        max_tokens=data.max_tokens,
        overlong=_OVERLONG_NUMBER[data.overlong],
        train_fraction=data.train_fraction,
        fail_on_leak=data.fail_on_leak,
    )


def _optimization_to_proto(optimization: Optimization) -> spec_pb2.Optimization:
    message = spec_pb2.Optimization(
        optimizer=_OPTIMIZER_NUMBER[optimization.optimizer],
        learning_rate=optimization.learning_rate,
        schedule=_SCHEDULE_NUMBER[optimization.schedule],
        warmup_ratio=optimization.warmup_ratio,
        weight_decay=optimization.weight_decay,
        max_grad_norm=optimization.max_grad_norm,
        rows_per_step=optimization.rows_per_step,
        rows_per_micro_batch=optimization.rows_per_micro_batch,
        decay_ratio=optimization.decay_ratio,
        decay_every_steps=optimization.decay_every_steps,
        decay_factor=optimization.decay_factor,
        recompute=_RECOMPUTE_NUMBER[optimization.recompute],
    )
    if optimization.epochs is not None:
        message.epochs = optimization.epochs
    if optimization.max_steps is not None:
        message.max_steps = optimization.max_steps
    return message


def _resources_to_proto(resources: Resources) -> spec_pb2.Resources:
    message = spec_pb2.Resources(
        nodes=resources.nodes,
        devices_per_node=resources.devices_per_node,
        cpu_millis=resources.cpu_millis,
        memory_bytes=resources.memory_bytes,
        node_labels=resources.node_labels,
    )
    if resources.lost_after_s is not None:
        message.lost_after.CopyFrom(durations.from_seconds(resources.lost_after_s))
    return message


def architecture_from_proto(message: models_pb2.Architecture) -> Architecture:
    """Converts what the registry knows of a model's architecture."""
    return Architecture(
        class_name=message.class_name,
        config=json.loads(message.config_json or "{}"),
        tensors=tuple(
            TensorShape(name=tensor.name, shape=tuple(tensor.shape), dtype=tensor.dtype) for tensor in message.tensors
        ),
    )


def architecture_to_proto(architecture: Architecture) -> models_pb2.Architecture:
    """Converts an architecture to its message; `config_json` is the configuration with sorted keys."""
    return models_pb2.Architecture(
        class_name=architecture.class_name,
        config_json=json.dumps(architecture.config, sort_keys=True),
        tensors=[
            models_pb2.TensorShape(name=tensor.name, shape=tensor.shape, dtype=tensor.dtype)
            for tensor in architecture.tensors
        ],
        parameters=architecture.parameters,
    )
