"""What the processes of a gang are sent of a checkpoint that the first one has read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from services.trainer.engine import gang_state
from services.trainer.engine.checkpoints import Checkpoint
from services.trainer.engine.gang import Gang
from services.trainer.engine.scaling import LossScale
from tuneforge.specs.spec import ComputeType


@dataclass(frozen=True)
class Relayed(Gang):
    """A gang whose first process speaks before the others listen: its words wait in a list."""

    said: list[Any] = field(default_factory=list)

    def tell(self, make: Callable[[], Any]) -> Any:
        """Says it, or hears it."""
        if self.is_first:
            self.said.append(make())
            return self.said[-1]
        return self.said.pop(0)

    def share(self, tensor: torch.Tensor) -> torch.Tensor:
        """Says it, or hears it."""
        if self.is_first:
            self.said.append(tensor.clone())
            return tensor
        return tensor.copy_(self.said.pop(0))


def test_what_every_process_reads_is_sent_to_all() -> None:
    """Random states and the scale of the loss arrive with their values, weights as shapes."""
    scale = LossScale(ComputeType.FP16)
    scale.moves(float("inf"))  # halved
    found = Checkpoint(
        step=3,
        attempt=1,
        facts={},
        tensors={
            "weights": {"w": torch.ones(4, 2)},
            "random": {"cpu": torch.arange(8, dtype=torch.uint8)},
            "scale": scale.tensors(),
        },
        digest="d",
    )
    said: list[Any] = []
    assert gang_state.shared(Relayed(rank=0, size=2, said=said), found) is not None
    heard = gang_state.shared(Relayed(rank=1, size=2, said=said), None)
    assert heard is not None
    assert not said
    assert heard.tensors["weights"]["w"].is_meta
    assert heard.tensors["random"]["cpu"].tolist() == list(range(8))
    other = LossScale(ComputeType.FP16)
    other.load(heard.tensors["scale"])
    assert other.factor == scale.factor
