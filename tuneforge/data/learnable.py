"""Which shapes of rows a task learns from."""

from collections.abc import Mapping
from typing import Final

from tuneforge.data.shapes.names import TRAINABLE, RowShape
from tuneforge.specs.spec import (
    ContinuedPretrainingTask,
    PreferenceTask,
    RewardModelTask,
    SupervisedTask,
    Task,
)

SHAPES: Final[Mapping[type[Task], frozenset[RowShape]]] = {
    SupervisedTask: TRAINABLE,
    ContinuedPretrainingTask: frozenset({RowShape.TEXT}),
    PreferenceTask: frozenset({RowShape.PREFERENCE}),
    RewardModelTask: frozenset({RowShape.PREFERENCE}),
}


def shapes_of(task: Task | None) -> frozenset[RowShape]:
    """Returns the shapes that a task learns from; without one, those of supervised fine-tuning."""
    return SHAPES[type(task)] if task is not None else TRAINABLE
