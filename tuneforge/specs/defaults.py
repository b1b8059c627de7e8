"""The defaults of a training spec, in one place; the comments in `spec.proto` name the same values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tuneforge.specs.architecture import Architecture
from tuneforge.specs.guards import with_guard_defaults
from tuneforge.specs.spec import (
    Checkpointing,
    ContinuedPretrainingTask,
    Evaluation,
    FullMethod,
    LearningRateSchedule,
    LoraMethod,
    Merge,
    MergeMethod,
    Method,
    Optimization,
    OverlongPolicy,
    PreferenceTask,
    QloraMethod,
    Resources,
    RewardModelTask,
    SupervisedTask,
    Task,
    TrainingSpec,
)

LORA_RANK = 16
MAX_TOKENS = 1024
LEARNING_RATES: Mapping[type[Task], tuple[float, float]] = {
    SupervisedTask: (2e-4, 2e-5),
    ContinuedPretrainingTask: (2e-4, 2e-5),
    # The whole model at the rate of the DPO paper (arXiv 2305.18290, appendix B).
    PreferenceTask: (1e-5, 1e-6),
    # The whole model near the rate of InstructGPT's reward model (arXiv 2203.02155, appendix C).
    RewardModelTask: (1e-4, 1e-5),
}
"""Peak learning rates by task, for adapters and for whole models; adapters take ten times the rate."""
WARMUP_RATIO = 0.05
MAX_GRAD_NORM = 1.0
ROWS_PER_STEP = 8
EPOCHS = 3.0
EPOCHS_OTHER = 1.0
"""Passes of all tasks but supervised fine-tuning: pairs are soon learned by heart, and texts are many."""
BETA = 0.1
DECAY_RATIO = 0.2
DECAY_EVERY_STEPS = 500
DECAY_FACTOR = 0.9
CHECKPOINT_EVERY_STEPS = 50
CHECKPOINTS_KEPT = 2
SAMPLE_TOKENS = 48
LOST_AFTER_S = 600.0
MIN_AGREEMENT = 0.995


def with_defaults(spec: TrainingSpec, architecture: Architecture | None = None) -> TrainingSpec:
    """Returns the spec with every default filled in that does not depend on the node.

    Args:
        spec: A spec for which `validation.validate` found nothing.
        architecture: Of the base, when it is known; bounds `max_tokens`.
    """
    limit = architecture.max_positions if architecture else None
    return replace(
        spec,
        task=_task(spec.task),
        method=_method(spec.method),
        data=replace(
            spec.data,
            max_tokens=spec.data.max_tokens or min(MAX_TOKENS, limit or MAX_TOKENS),
            overlong=spec.data.overlong or _overlong(spec.task),
        ),
        optimization=_optimization(spec),
        checkpointing=_checkpointing(spec.checkpointing),
        evaluation=_evaluation(spec.evaluation),
        resources=_resources(spec.resources),
        seed=spec.seed or 0,
        guards=with_guard_defaults(spec.guards),
        merge=_merge(spec),
    )


def _task(task: Task | None) -> Task | None:
    return replace(task, beta=task.beta or BETA) if isinstance(task, PreferenceTask) else task


def _overlong(task: Task | None) -> OverlongPolicy:
    return OverlongPolicy.SPLIT if isinstance(task, ContinuedPretrainingTask) else OverlongPolicy.DROP


def _method(method: Method | None) -> Method | None:
    if isinstance(method, LoraMethod):
        return _lora(method)
    if isinstance(method, QloraMethod):
        return replace(method, lora=_lora(method.lora))
    return method


def _lora(lora: LoraMethod) -> LoraMethod:
    rank = lora.rank or LORA_RANK
    return replace(lora, rank=rank, alpha=lora.alpha or 2.0 * rank, dropout=lora.dropout or 0.0)


def _optimization(spec: TrainingSpec) -> Optimization:
    optimization, task = spec.optimization, type(spec.task or SupervisedTask())
    has_length = optimization.epochs is not None or optimization.max_steps is not None
    adapter_rate, full_rate = LEARNING_RATES[task]
    return replace(
        _decay(optimization),
        learning_rate=optimization.learning_rate
        or (full_rate if isinstance(spec.method, FullMethod) else adapter_rate),
        warmup_ratio=WARMUP_RATIO if optimization.warmup_ratio is None else optimization.warmup_ratio,
        weight_decay=optimization.weight_decay or 0.0,
        max_grad_norm=MAX_GRAD_NORM if optimization.max_grad_norm is None else optimization.max_grad_norm,
        rows_per_step=optimization.rows_per_step or ROWS_PER_STEP,
        epochs=optimization.epochs if has_length else EPOCHS if task is SupervisedTask else EPOCHS_OTHER,
    )


def _decay(optimization: Optimization) -> Optimization:
    """Fills in how the rate falls, where the schedule has a choice of it."""
    if optimization.schedule is LearningRateSchedule.WSD and optimization.decay_ratio is None:
        return replace(optimization, decay_ratio=DECAY_RATIO)
    if optimization.schedule is LearningRateSchedule.STEP:
        factor = DECAY_FACTOR if optimization.decay_factor is None else optimization.decay_factor
        every = optimization.decay_every_steps or DECAY_EVERY_STEPS
        return replace(optimization, decay_every_steps=every, decay_factor=factor)
    return optimization


def _checkpointing(checkpointing: Checkpointing) -> Checkpointing:
    every = checkpointing.every_steps
    durable_every = checkpointing.durable_every_steps
    return replace(
        checkpointing,
        every_steps=CHECKPOINT_EVERY_STEPS if every is None else every,
        keep_last=checkpointing.keep_last or CHECKPOINTS_KEPT,
        durable_every_steps=1 if durable_every is None else durable_every,
    )


def _evaluation(evaluation: Evaluation) -> Evaluation:
    return replace(evaluation, max_new_tokens=evaluation.max_new_tokens or SAMPLE_TOKENS)


def _resources(resources: Resources) -> Resources:
    lost_after_s = LOST_AFTER_S if resources.lost_after_s is None else resources.lost_after_s
    return replace(resources, nodes=resources.nodes or 1, lost_after_s=lost_after_s)


def _merge(spec: TrainingSpec) -> Merge | None:
    merge = spec.merge or (Merge() if isinstance(spec.method, MergeMethod) else None)
    if merge is None:
        return None
    return replace(merge, min_agreement=MIN_AGREEMENT if merge.min_agreement is None else merge.min_agreement)
