"""From settings, base and rows to the spec of a job."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuneforge.datasets import DatasetVersion
from tuneforge.models import ModelVersion
from tuneforge.names import is_id
from tuneforge.one_shot.settings import (
    ADAPTED_LAYERS,
    MAX_SEQ_LENGTH,
    WARMUP_STEPS,
    RunSettings,
    SettingsFault,
)
from tuneforge.specs.defaults import WARMUP_RATIO
from tuneforge.specs.spec import ComputeType

_LONGEST_ID = 48


@dataclass(frozen=True, slots=True)
class JobPlan:
    """What is asked of the scheduler."""

    spec: Mapping[str, Any]
    """In its JSON form."""
    notes: tuple[str, ...]
    """What a person should know of it."""


def resource_id(text: str) -> str:
    """Returns an id for a model or data set that people call by a path or an id of the hub.

    `Qwen/Qwen2.5-7B-Instruct` becomes `qwen2-5-7b-instruct`.
    """
    last = re.split(r"[/\\]", text.rstrip("/\\"))[-1].partition("@")[0]
    words = re.sub(r"[^a-z0-9]+", "-", last.lower()).strip("-")[:_LONGEST_ID].strip("-")
    found = words if words[:1].isalpha() else f"m-{words}".rstrip("-")
    return found if is_id(found) else "model"


def plan_job(settings: RunSettings, base: ModelVersion, rows: DatasetVersion, output_model: str) -> JobPlan:
    """Returns the job that does what the settings say.

    Args:
        settings: Checked.
        base: The version to start from.
        rows: The version to learn from.
        output_model: Id of the model that gets the result.

    Raises:
        SettingsFault: The warm-up is longer than the run.
    """
    notes = list(settings.ignored)
    statistics = rows.statistics
    held_back = statistics.validation_rows if statistics else 0
    train_rows = statistics.train_rows if statistics else rows.rows
    steps = steps_of(settings, train_rows)
    evaluation: dict[str, Any] = {"every_steps": settings.eval_steps} if settings.eval_steps and held_back else {}
    if settings.eval_steps and not held_back:
        notes.append("eval_steps: no rows are held back, so that there is nothing to evaluate on.")
    content: dict[str, Any] = {
        "base": {"model": base.name},
        "supervised": {},
        "data": {"train": {"dataset": rows.name}, "overlong": "truncate"},
        "optimization": {
            "learning_rate": settings.rate,
            "rows_per_step": settings.rows_per_step,
            "rows_per_micro_batch": settings.batch_size,
            "epochs": settings.epochs,
            "warmup_ratio": warmup_ratio(settings, steps),
            **({"recompute": "full"} if settings.gradient_checkpointing else {}),
        },
        "precision": {"compute": _compute(settings, notes)},
        # A run that is shorter than the pace saves its last step.
        "checkpointing": {"every_steps": min(settings.save_steps, steps), "keep_last": settings.save_total_limit},
        "evaluation": evaluation,
        "output": {"model": output_model},
        "seed": settings.seed,
    }
    content["data"]["max_tokens"] = settings.max_seq_length or min(
        MAX_SEQ_LENGTH, base.architecture.max_positions or MAX_SEQ_LENGTH
    )
    if held_back:
        content["data"]["validation"] = {"dataset": rows.name}
    adapters = {
        "rank": settings.lora_rank,
        "alpha": settings.lora_alpha,
        "dropout": settings.lora_dropout,
        "target_modules": list(_targets(settings, base, notes)),
    }
    method: Any = {"lora": adapters, "qlora": {"lora": adapters}, "full": {}}[settings.method]
    content[settings.method] = method
    return JobPlan(content, tuple(notes))


def steps_of(settings: RunSettings, rows: int) -> int:
    """Returns how many optimiser steps the run has over so many rows, at least 1; each pass ends with a step."""
    whole, fraction = divmod(settings.epochs, 1.0)
    in_pass = math.ceil(rows / settings.rows_per_step)
    return max(1, int(whole) * in_pass + math.ceil(round(fraction * rows / settings.rows_per_step, 9)))


def warmup_ratio(settings: RunSettings, steps: int) -> float:
    """Returns the share of the steps over which the rate rises.

    Args:
        settings: With the number of steps of warm-up, or without.
        steps: Optimiser steps of the run.

    Raises:
        SettingsFault: There are more steps of warm-up than steps.
    """
    if settings.warmup_steps is None:
        return min(WARMUP_RATIO, WARMUP_STEPS / steps)
    if settings.warmup_steps >= steps:
        raise SettingsFault([f"warmup_steps is {settings.warmup_steps}, and the run has about {steps} steps."])
    return settings.warmup_steps / steps


def _compute(settings: RunSettings, notes: list[str]) -> str:
    if settings.bf16:
        return ComputeType.BF16.value
    if settings.fp16:
        if "fp16" in {each.value for each in ComputeType}:
            return "fp16"
        notes.append("fp16: this release computes in bf16 where the device can, else in fp32; master weights are fp32.")
    return ComputeType.AUTO.value


def _targets(settings: RunSettings, base: ModelVersion, notes: list[str]) -> tuple[str, ...]:
    """Returns the layers that get adapters; none stands for all linear ones."""
    layers = base.architecture.linear_layers()
    if settings.target_modules:
        return settings.target_modules
    if all(name in layers for name in ADAPTED_LAYERS):
        return ADAPTED_LAYERS
    if settings.method != "full" and layers:
        notes.append(
            f"target_modules: the model has no {', '.join(ADAPTED_LAYERS)}; all its linear layers get adapters: "
            f"{', '.join(sorted(layers))}."
        )
    return ()
