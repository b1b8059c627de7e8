"""From the task of a spec to what computes it."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from services.trainer.engine.corpus import Example
from services.trainer.engine.task import Task
from services.trainer.engine.tasks.language import LanguageTask
from services.trainer.engine.tasks.preference import PreferenceTask
from services.trainer.engine.tasks.reference import AdaptersOff, ReferenceRun, computed_reference
from services.trainer.engine.tasks.reward import RewardTask
from tuneforge.specs import spec as specs


def make_task(
    spec: specs.TrainingSpec, model: Any, examples: Iterable[Sequence[Example]], reference: ReferenceRun
) -> Task:
    """Returns what a model learns; a reference that has to be computed before the first step is computed here.

    Args:
        spec: Resolved.
        model: With the weights that the run begins with.
        examples: Rows to learn from, then those to measure on.
        reference: How a reference is computed, and where it is kept.
    """
    match spec.task:
        case specs.PreferenceTask() if spec.lora is not None:
            return PreferenceTask(spec.task, AdaptersOff())
        case specs.PreferenceTask():
            return PreferenceTask(spec.task, computed_reference(model, list(chain(*examples)), reference))
        case specs.RewardModelTask():
            return RewardTask()
        case _:
            return LanguageTask()
