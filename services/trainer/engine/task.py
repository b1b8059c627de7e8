"""The face of a task to the verbs."""

from collections.abc import Sequence
from typing import Any, Protocol

from services.trainer.engine.batches import BatchLimits
from services.trainer.engine.corpus import Example
from services.trainer.engine.losses import LossSum


class Task(Protocol):
    """What is computed of rows."""

    def parts(self, examples: Sequence[Example], limits: BatchLimits) -> Sequence[Any]:
        """Divides rows into parts, each of which `loss` takes; every row is in one part."""

    def loss(self, model: Any, part: Any) -> LossSum:
        """Returns the loss of a part.

        Args:
            model: In training mode, or while it is measured in evaluation mode and without gradients.
            part: On the model's device.
        """
