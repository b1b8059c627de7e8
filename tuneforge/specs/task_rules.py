"""What a task asks of the rest of a spec."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tuneforge.errors import FieldViolation
from tuneforge.specs.spec import (
    ContinuedPretrainingTask,
    OverlongPolicy,
    PreferenceLoss,
    PreferenceTask,
    RewardModelTask,
    TrainingSpec,
)

LABEL_SMOOTHING_MAX = 0.5


def task_violations(spec: TrainingSpec) -> Iterator[FieldViolation]:
    """Yields what is wrong with a spec's task, and with what does not go with it."""
    task = spec.task
    if task is None:
        yield FieldViolation(
            "task", "is missing: set one of `supervised`, `continued_pretraining`, `preference`, `reward_model`"
        )
    if isinstance(task, PreferenceTask):
        yield from _preference(task)
    if spec.data.overlong is OverlongPolicy.SPLIT and not isinstance(task, ContinuedPretrainingTask):
        yield FieldViolation(
            "data.overlong", "is `split`, which is for `continued_pretraining`: use `drop`, `truncate` or `refuse`"
        )
    if isinstance(task, PreferenceTask | RewardModelTask):
        yield from _alone(spec)
    if isinstance(task, RewardModelTask) and spec.merge is not None:
        yield FieldViolation("output.merge", "is for models that write text: leave it out with `reward_model`")
    if isinstance(task, RewardModelTask) and spec.evaluation.prompts:
        yield FieldViolation(
            "evaluation.prompts", "is set, and a reward model writes no text: leave it out, or choose another task"
        )


def _alone(spec: TrainingSpec) -> Iterator[FieldViolation]:
    """What learns from pairs runs in one process: two passes through one spread model are not proven yet."""
    for name, value in (("nodes", spec.resources.nodes), ("devices_per_node", spec.resources.devices_per_node)):
        if value is not None and value > 1:
            yield FieldViolation(
                f"resources.{name}", f"is {value}: this release learns from pairs in one process; use 1"
            )


def _preference(task: PreferenceTask) -> Iterator[FieldViolation]:
    if not math.isfinite(task.beta) or task.beta < 0:
        yield FieldViolation("preference.beta", f"is {task.beta}: use a number > 0, or 0 for the default")
    if not 0 <= task.label_smoothing < LABEL_SMOOTHING_MAX:
        yield FieldViolation(
            "preference.label_smoothing",
            f"is {task.label_smoothing}: use 0 or more and less than {LABEL_SMOOTHING_MAX}",
        )
    elif task.label_smoothing and task.loss is not PreferenceLoss.SIGMOID:
        yield FieldViolation(
            "preference.label_smoothing",
            f"is for the loss `sigmoid`, not `{task.loss}`: leave it out or change the loss",
        )
