"""The scale of the loss in float16, where small gradients would vanish and large ones overflow.

As in Micikevicius et al., arXiv 1710.03740, section 3.2: the loss is multiplied, its gradients are divided before they
are used. When they overflow the step moves nothing and the scale is halved; after many steps without it is doubled.
"""

import math
from collections.abc import Iterable, Mapping

import torch

from tuneforge.specs.spec import ComputeType

FIRST_FACTOR = 2.0**14
LARGEST_FACTOR = 2.0**24
STEPS_TO_GROW = 1000
"""Steps without an overflow after which the scale is doubled."""


class LossScale:
    """A power of two that the loss is multiplied by; 1, for ever, in other formats than float16."""

    def __init__(self, compute: ComputeType) -> None:
        self.is_used = compute is ComputeType.FP16
        self.factor = FIRST_FACTOR if self.is_used else 1.0
        self._steps = 0

    def unscale(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Divides gradients by the scale, in place."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.is_used and gradients:
            torch._foreach_mul_(gradients, 1.0 / self.factor)

    def moves(self, grad_norm: float) -> bool:
        """Takes the norm of the gradients of a step, and tells whether the step may move the weights."""
        if not self.is_used:
            return True
        self._steps += 1
        if not math.isfinite(grad_norm):
            self.factor, self._steps = self.factor / 2, 0
            return self.factor < 1.0  # the gradients themselves are not finite: the caller says so
        if self._steps == STEPS_TO_GROW:
            self.factor, self._steps = min(2 * self.factor, LARGEST_FACTOR), 0
        return True

    def tensors(self) -> dict[str, torch.Tensor]:
        """Returns its state; nothing where it is not used."""
        if not self.is_used:
            return {}
        return {
            "factor": torch.tensor(self.factor, dtype=torch.float64),
            "steps": torch.tensor(self._steps, dtype=torch.int64),
        }

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Puts back what `tensors` gave."""
        if self.is_used:
            self.factor, self._steps = float(tensors["factor"]), int(tensors["steps"])
