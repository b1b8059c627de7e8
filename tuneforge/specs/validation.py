"""What is wrong with a training spec: all of it at once, each with the field, the value and what it may be.

Needs no model: what depends on the base's shapes is checked when its architecture is given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from tuneforge.architectures import ModelTask, task_of
from tuneforge.errors import FieldViolation
from tuneforge.specs.architecture import Architecture
from tuneforge.specs.defaults import DECAY_RATIO, LORA_RANK, WARMUP_RATIO
from tuneforge.specs.freezing import count_layers
from tuneforge.specs.guards import guard_violations
from tuneforge.specs.spec import (
    BaseModel,
    DataConfig,
    DataSource,
    Evaluation,
    FullMethod,
    LearningRateSchedule,
    LoraMethod,
    Merge,
    Optimization,
    Optimizer,
    QloraMethod,
    Quantization,
    Resources,
    TrainingSpec,
)
from tuneforge.specs.task_rules import task_violations

MAX_TOKENS_RANGE = (8, 131_072)
ROWS_PER_STEP_MAX = 65_536
EPOCHS_MAX = 10_000.0
STEPS_MAX = 1_000_000_000
CPU_MILLIS_MAX = 1_000_000_000
"""A million cores."""
MEMORY_BYTES_MAX = 2**60
LEARNING_RATE_MAX = 100.0
"""Far above any rate that learns: a mistake of units."""
SAMPLE_PROMPTS_MAX = 16
SAMPLE_TOKENS_MAX = 512
KEYWORDS_MAX = 50
KEYWORD_CHARACTERS = 200
NODES_MAX = 64
SHARDED_OPTIMIZERS = (Optimizer.ADAMW, Optimizer.SGD)
LOST_AFTER_RANGE_S = (1.0, 7 * 24 * 3600.0)


def validate(
    spec: TrainingSpec, architecture: Architecture | None = None, *, allow_local_paths: bool = False
) -> list[FieldViolation]:
    """Returns everything that is wrong with a spec, an empty list when it can be trained.

    Args:
        spec: The spec, with or without defaults.
        architecture: Of the base, when it is known: bounds the rank, the target modules and `max_tokens`.
        allow_local_paths: On an unmanaged trainer a base and rows may be local paths.
    """
    return list(_violations(spec, architecture, allow_local_paths))


def _violations(spec: TrainingSpec, architecture: Architecture | None, allow_local: bool) -> Iterator[FieldViolation]:
    yield from _base(spec.base, allow_local)
    if architecture is not None and task_of(architecture.class_name) not in (None, ModelTask.TEXT_GENERATION):
        yield FieldViolation(
            "base",
            f"is a {architecture.class_name}, a model for {task_of(architecture.class_name)}: only models for "
            f"{ModelTask.TEXT_GENERATION} can be trained in this release; choose one of those",
        )
    yield from task_violations(spec)
    if isinstance(spec.method, QloraMethod):
        yield from _quantized(spec.method, spec.merge)
    if spec.method is None:
        yield FieldViolation("method", "is missing: set one of `lora`, `qlora`, `full`, `merge`")
    if spec.lora is not None:
        yield from _lora(spec.lora, "qlora.lora" if isinstance(spec.method, QloraMethod) else "lora", architecture)
    if isinstance(spec.method, FullMethod):
        yield from _frozen(spec.method, architecture)
    yield from _data(spec.data, architecture, allow_local)
    yield from _optimization(spec.optimization)
    yield from _count("checkpointing.every_steps", spec.checkpointing.every_steps or 0, minimum=0)
    yield from _count("checkpointing.keep_last", spec.checkpointing.keep_last, minimum=0)
    yield from _count("checkpointing.durable_every_steps", spec.checkpointing.durable_every_steps or 0, minimum=0)
    yield from _evaluation(spec.evaluation)
    yield from _best(spec)
    yield from _resources(spec.resources)
    if spec.merge is not None:
        yield from _merge(spec.merge, is_full=isinstance(spec.method, FullMethod))
    yield from _gang(spec)
    yield from _count("seed", spec.seed or 0, minimum=0)
    yield from guard_violations(spec.guards)


def _base(base: BaseModel, allow_local: bool) -> Iterator[FieldViolation]:
    chosen = [name for name in ("model", "output_of_job", "local_path") if getattr(base, name)]
    if not chosen:
        yield FieldViolation("base", "is missing: set `model` to a version or an alias, or `output_of_job` to a job")
    elif len(chosen) > 1:
        yield FieldViolation("base", f"has {' and '.join(f'`{name}`' for name in chosen)}: set one of them")
    elif base.local_path and not allow_local:
        yield FieldViolation(
            "base.local_path", "is for unmanaged trainers only: import the model at the registry and set `base.model`"
        )


def _data(data: DataConfig, architecture: Architecture | None, allow_local: bool) -> Iterator[FieldViolation]:
    yield from _source("data.train", data.train, allow_local)
    if data.validation is not None:
        yield from _source("data.validation", data.validation, allow_local)
    if not 0 <= data.train_fraction <= 1:
        yield FieldViolation(
            "data.train_fraction", f"is {data.train_fraction}: use more than 0 and at most 1, or 0 for all"
        )
    if data.fail_on_leak and data.validation is None:
        yield FieldViolation(
            "data.fail_on_leak", "is set without rows to compare: set `data.validation`, or leave it out"
        )
    low, high = MAX_TOKENS_RANGE
    if data.max_tokens != 0 and not low <= data.max_tokens <= high:
        yield FieldViolation("data.max_tokens", f"is {data.max_tokens}: use {low} to {high}, or 0 for the default")
    elif architecture and architecture.max_positions and data.max_tokens > architecture.max_positions:
        limit = architecture.max_positions
        yield FieldViolation("data.max_tokens", f"is {data.max_tokens}: the base takes at most {limit} tokens")


def _source(path: str, source: DataSource, allow_local: bool) -> Iterator[FieldViolation]:
    if not source.dataset and not source.local_path:
        yield FieldViolation(path, "is missing: set `dataset` to a data set version")
    elif source.dataset and source.local_path:
        yield FieldViolation(path, "has `dataset` and `local_path`: set one of them")
    elif source.local_path and not allow_local:
        yield FieldViolation(
            f"{path}.local_path", "is for unmanaged trainers only: upload the rows to the registry and set `dataset`"
        )


def _lora(lora: LoraMethod, path: str, architecture: Architecture | None) -> Iterator[FieldViolation]:
    if lora.rank < 0:
        yield FieldViolation(f"{path}.rank", f"is {lora.rank}: use 1 or more, or 0 for the default")
    yield from _number(f"{path}.alpha", lora.alpha, "use a number > 0, or 0 for twice the rank")
    if lora.dropout is not None and not 0 <= lora.dropout < 1:
        yield FieldViolation(f"{path}.dropout", f"is {lora.dropout}: use 0 or more and less than 1")
    if architecture is None:
        return
    layers = architecture.linear_layers()
    for index, module in enumerate(lora.target_modules):
        if module not in layers:
            known = ", ".join(sorted(layers)) or "none"
            yield FieldViolation(f"{path}.target_modules[{index}]", f"is `{module}`: the base has {known}")
    targets = [name for name in (lora.target_modules or sorted(layers)) if name in layers]
    sides = {name: min(min(tensor.shape) for tensor in layers[name]) for name in targets}
    if sides:
        narrowest = min(sides, key=lambda name: sides[name])
        rank = lora.rank or LORA_RANK
        if rank > sides[narrowest]:
            yield FieldViolation(
                f"{path}.rank",
                f"is {rank}{'' if lora.rank else ' by default'}: the smallest side of the target layer "
                f"`{narrowest}` is {sides[narrowest]}; "
                f"use at most {sides[narrowest]}",
            )


def _frozen(full: FullMethod, architecture: Architecture | None) -> Iterator[FieldViolation]:
    yield from _count("full.freeze_layers", full.freeze_layers, minimum=0)
    layers = count_layers([tensor.name for tensor in architecture.tensors]) if architecture else 0
    if layers and full.freeze_layers >= layers:
        yield FieldViolation(
            "full.freeze_layers", f"is {full.freeze_layers}: the base has {layers} layers; use at most {layers - 1}"
        )


def _optimization(optimization: Optimization) -> Iterator[FieldViolation]:
    prefix = "optimization"
    rate = optimization.learning_rate
    yield from _number(f"{prefix}.learning_rate", rate, "use a number > 0, or 0 for the default")
    if math.isfinite(rate) and rate > LEARNING_RATE_MAX:
        yield FieldViolation(f"{prefix}.learning_rate", f"is {rate:g}: use at most {LEARNING_RATE_MAX:g}")
    if optimization.warmup_ratio is not None and not 0 <= optimization.warmup_ratio < 1:
        yield FieldViolation(f"{prefix}.warmup_ratio", f"is {optimization.warmup_ratio}: use 0 or more and less than 1")
    yield from _decay(optimization)
    yield from _number(f"{prefix}.weight_decay", optimization.weight_decay or 0.0, "use a number >= 0")
    yield from _number(
        f"{prefix}.max_grad_norm", optimization.max_grad_norm or 0.0, "use a number >= 0; 0 does not clip"
    )
    rows = optimization.rows_per_step
    if not 0 <= rows <= ROWS_PER_STEP_MAX:
        yield FieldViolation(
            f"{prefix}.rows_per_step", f"is {rows}: use 1 to {ROWS_PER_STEP_MAX}, or 0 for the default"
        )
    micro_rows = optimization.rows_per_micro_batch
    yield from _count(f"{prefix}.rows_per_micro_batch", micro_rows, minimum=0, maximum=ROWS_PER_STEP_MAX)
    if optimization.epochs is not None and optimization.max_steps is not None:
        yield FieldViolation(f"{prefix}.epochs", "is set beside `max_steps`: set one of them")
    elif optimization.epochs is not None and not 0 < optimization.epochs <= EPOCHS_MAX:
        allowed = f"use a number > 0, at most {EPOCHS_MAX:g}"
        yield FieldViolation(f"{prefix}.epochs", f"is {optimization.epochs}: {allowed}")
    elif optimization.max_steps is not None:
        yield from _count(f"{prefix}.max_steps", optimization.max_steps, minimum=1, maximum=STEPS_MAX)


def _decay(optimization: Optimization) -> Iterator[FieldViolation]:
    """How the rate falls, for the one schedule that has a choice of it."""
    prefix, schedule = "optimization", optimization.schedule
    given = {
        "decay_ratio": (optimization.decay_ratio is not None, LearningRateSchedule.WSD),
        "decay_every_steps": (optimization.decay_every_steps != 0, LearningRateSchedule.STEP),
        "decay_factor": (optimization.decay_factor is not None, LearningRateSchedule.STEP),
    }
    for name, (is_set, wanted) in given.items():
        if is_set and schedule is not wanted:
            yield FieldViolation(
                f"{prefix}.{name}",
                f"is for the schedule `{wanted}`, not `{schedule}`: leave it out or change the schedule",
            )
    ratio, factor = optimization.decay_ratio, optimization.decay_factor
    if ratio is not None and not 0 < ratio <= 1:
        yield FieldViolation(f"{prefix}.decay_ratio", f"is {ratio}: use more than 0 and at most 1")
    elif schedule is LearningRateSchedule.WSD:
        warmup = WARMUP_RATIO if optimization.warmup_ratio is None else optimization.warmup_ratio
        if warmup < 1 and warmup + (ratio or DECAY_RATIO) > 1:
            yield FieldViolation(
                f"{prefix}.decay_ratio",
                f"is {ratio or DECAY_RATIO} beside a warmup_ratio of {warmup}: use at most 1 together",
            )
    yield from _count(f"{prefix}.decay_every_steps", optimization.decay_every_steps, minimum=0)
    if factor is not None and not 0 < factor < 1:
        yield FieldViolation(f"{prefix}.decay_factor", f"is {factor}: use more than 0 and less than 1")


def _evaluation(evaluation: Evaluation) -> Iterator[FieldViolation]:
    yield from _count("evaluation.every_steps", evaluation.every_steps, minimum=0)
    if len(evaluation.prompts) > SAMPLE_PROMPTS_MAX:
        found = len(evaluation.prompts)
        yield FieldViolation("evaluation.prompts", f"has {found} entries: use at most {SAMPLE_PROMPTS_MAX}")
    for index, prompt in enumerate(evaluation.prompts):
        if not prompt.strip():
            yield FieldViolation(f"evaluation.prompts[{index}]", "is empty: write a prompt or leave it out")
    if not 0 <= evaluation.max_new_tokens <= SAMPLE_TOKENS_MAX:
        found = evaluation.max_new_tokens
        yield FieldViolation(
            "evaluation.max_new_tokens", f"is {found}: use 1 to {SAMPLE_TOKENS_MAX}, or 0 for the default"
        )
    yield from _keywords(evaluation)


def _keywords(evaluation: Evaluation) -> Iterator[FieldViolation]:
    keywords = evaluation.keywords
    if keywords and len(keywords) != len(evaluation.prompts):
        found, wanted = len(keywords), len(evaluation.prompts)
        yield FieldViolation(
            "evaluation.keywords", f"has {found} entries beside {wanted} prompts: give one for each, or none"
        )
    for index, words in enumerate(keywords):
        if len(words) > KEYWORDS_MAX or not all(word.strip() and len(word) <= KEYWORD_CHARACTERS for word in words):
            yield FieldViolation(
                f"evaluation.keywords[{index}].any_of",
                f"has {len(words)} entries: use at most {KEYWORDS_MAX} of 1 to {KEYWORD_CHARACTERS} characters",
            )


def _quantized(method: QloraMethod, merge: Merge | None) -> Iterator[FieldViolation]:
    if method.quantization is Quantization.INT8 and method.lora.use_dora:
        yield FieldViolation("qlora.lora.use_dora", "is set beside `int8`: DoRA goes with `nf4` or whole weights")
    if merge is not None and method.quantization is not Quantization.NF4:
        yield FieldViolation("output.merge", f"is for `nf4`, not `{method.quantization}`: leave one of them out")


def _merge(merge: Merge, *, is_full: bool) -> Iterator[FieldViolation]:
    if is_full:
        yield FieldViolation("output.merge", "is for adapters: with `full` the result is a whole model; leave it out")
    share = merge.min_agreement
    if share is not None and not 0 <= share <= 1:
        yield FieldViolation("output.merge.min_agreement", f"is {share}: use a number from 0 to 1")


def _best(spec: TrainingSpec) -> Iterator[FieldViolation]:
    """What needs a validation loss during the run has one."""
    evaluation = spec.evaluation
    yield from _count("evaluation.patience", evaluation.patience, minimum=0)
    yield from _number("evaluation.min_improvement", evaluation.min_improvement, "use a number >= 0")
    wanted = {"patience": evaluation.patience > 0, "use_best": evaluation.use_best}
    for name in (name for name, is_wanted in wanted.items() if is_wanted):
        if spec.data.validation is None:
            yield FieldViolation(f"evaluation.{name}", "needs a validation loss: set `data.validation`")
        if not evaluation.every_steps:
            yield FieldViolation(f"evaluation.{name}", "needs evaluations during the run: set `evaluation.every_steps`")


def _gang(spec: TrainingSpec) -> Iterator[FieldViolation]:
    """What several nodes can do together: shards of a weight are moved by rules that look at each number alone."""
    rule = spec.optimization.optimizer
    if spec.resources.nodes > 1 and not isinstance(spec.method, QloraMethod) and rule not in SHARDED_OPTIMIZERS:
        names = ", ".join(f"`{each}`" for each in SHARDED_OPTIMIZERS)
        yield FieldViolation(
            "optimization.optimizer",
            f"is `{rule}`: with {spec.resources.nodes} nodes and `lora` or `full` use one of {names}, or `qlora`",
        )


def _resources(resources: Resources) -> Iterator[FieldViolation]:
    if not 0 <= resources.nodes <= NODES_MAX:
        yield FieldViolation("resources.nodes", f"is {resources.nodes}: use 1 to {NODES_MAX}, or 0 for 1")
    devices = resources.devices_per_node
    if devices is not None and devices not in (0, 1):
        yield FieldViolation(
            "resources.devices_per_node",
            f"is {devices}: use 0 or 1; for more devices ask for more `resources.nodes`, with one trainer a device",
        )
    yield from _count("resources.cpu_millis", resources.cpu_millis, minimum=0, maximum=CPU_MILLIS_MAX)
    yield from _count("resources.memory_bytes", resources.memory_bytes, minimum=0, maximum=MEMORY_BYTES_MAX)
    low, high = LOST_AFTER_RANGE_S
    if resources.lost_after_s is not None and not low <= resources.lost_after_s <= high:
        yield FieldViolation(
            "resources.lost_after", f"is {resources.lost_after_s} s: use {low:.0f} s to {high:.0f} s (7 days)"
        )


def _number(path: str, value: float, allowed: str) -> Iterator[FieldViolation]:
    """A number that must be finite and not negative."""
    if not math.isfinite(value) or value < 0:
        yield FieldViolation(path, f"is {value}: {allowed}")


def _count(path: str, value: int, *, minimum: int, maximum: int | None = None) -> Iterator[FieldViolation]:
    if value < minimum:
        yield FieldViolation(path, f"is {value}: use {minimum} or more")
    elif maximum is not None and value > maximum:
        yield FieldViolation(path, f"is {value}: use at most {maximum}")
