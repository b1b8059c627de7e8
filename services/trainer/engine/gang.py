"""The processes that train one model together, and everything that they say to each other.

A process that trains alone is a gang of one, for which each word below costs nothing. All methods are collective: every
process of the gang calls them, in the same order. Nothing is pickled: numbers travel as tensors, all else as JSON.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.distributed as dist

from services.trainer.engine.training_task import EventSink, Payload, StopRequest

_URGENCY: Final = (None, StopRequest.CHECKPOINT, StopRequest.CANCEL)
"""What a process may be asked for; of several, the gang does the last."""


@dataclass(frozen=True, slots=True)
class Gang:
    """This process among those that train one model."""

    rank: int = 0
    """Number of this process, from 0; the first one reports and writes."""
    size: int = 1
    """Processes, >= 1."""

    @property
    def is_first(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is no other process."""
        return self.size == 1

    def gather(self, numbers: Sequence[float]) -> list[list[float]]:
        """Returns the numbers of every process, by rank; as many from each."""
        if self.is_alone:
            return [list(numbers)]
        own = torch.tensor([numbers], dtype=torch.float64)
        rows = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(rows, own)
        return [row[0].tolist() for row in rows]

    def sum(self, number: float) -> float:
        """Returns the sum over all processes, added in the order of their ranks: the same bits for each."""
        total: float = sum(row[0] for row in self.gather([number]))
        return total

    def largest(self, number: int) -> int:
        """Returns the largest of all processes' numbers."""
        return int(max(row[0] for row in self.gather([number])))

    def smallest(self, number: int) -> int:
        """Returns the smallest of all processes' numbers."""
        return int(min(row[0] for row in self.gather([number])))

    def tell(self, make: Callable[[], Any]) -> Any:
        """Returns what the first process makes, to all of them.

        Args:
            make: Gives JSON values; called in the first process only.
        """
        if self.is_alone:
            return make()
        content = json.dumps(make()).encode() if self.is_first else b""
        size = torch.tensor([len(content)])
        dist.broadcast(size, 0)
        data = torch.frombuffer(bytearray(content), dtype=torch.uint8) if self.is_first else None
        data = torch.empty(int(size), dtype=torch.uint8) if data is None else data
        dist.broadcast(data, 0)
        return json.loads(data.numpy().tobytes())

    def agreed(self, stop: Callable[[], StopRequest | None]) -> Callable[[], StopRequest | None]:
        """Returns a stop that all processes are asked for at the same step, when any one of them is."""
        if self.is_alone:
            return stop
        return lambda: _URGENCY[self.largest(_URGENCY.index(stop()))]

    def share(self, tensor: torch.Tensor) -> torch.Tensor:
        """Fills a tensor on the CPU with what it holds in the first process, and returns it."""
        if not self.is_alone:
            dist.broadcast(tensor, 0)
        return tensor

    def collect(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Returns a tensor on the CPU, of one shape everywhere, from every process, by rank."""
        if self.is_alone:
            return [tensor]
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(found, tensor)
        return found


ALONE: Final = Gang()
"""A process that trains by itself."""


class Silence:
    """Where the reports of all processes but the first go: they would say everything again."""

    def emit(self, payload: Payload) -> None:
        """Drops one report."""


def voice(gang: Gang, sink: EventSink) -> EventSink:
    """Returns where this process reports to."""
    return sink if gang.is_first else Silence()
