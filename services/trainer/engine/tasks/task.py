"""The face of a task to the verbs."""

from collections.abc import Sequence
from typing import Any, Protocol, Self

import torch

from services.trainer.engine.batches import BatchLimits
from services.trainer.engine.corpus import Example
from services.trainer.engine.losses import LossSum


class Part(Protocol):
    """Rows of a step that are computed at once."""

    @property
    def count(self) -> int:
        """What the loss is a mean over: tokens or pairs, >= 1."""

    @property
    def tokens(self) -> int:
        """Tokens of its rows, filling left out."""

    @property
    def computed_tokens(self) -> int:
        """Positions that are computed: common beginnings once, filling too."""

    @property
    def supervised_tokens(self) -> int:
        """Tokens that are learned."""

    def to(self, device: torch.device) -> Self:
        """Returns the part on a device."""


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
