"""Which rows of a step each process of a gang computes: a pure function, so that a resume deals them out again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.trainer.engine.batches import BatchLimits
from services.trainer.engine.corpus import Example
from services.trainer.engine.gang import Gang
from services.trainer.engine.losses import Totals
from services.trainer.engine.task import Task


def deal(lengths: Sequence[int], processes: int) -> tuple[tuple[int, ...], ...]:
    """Deals rows out so that every process computes about as many tokens.

    The longest row goes first, each to the process with the fewest tokens so far (Graham, SIAM J. Appl. Math. 17, 1969:
    the busiest process gets at most 4/3 of what the best division gives it).

    Args:
        lengths: Tokens of each row.
        processes: How many processes there are, >= 1.

    Returns:
        For each process its rows as indices into `lengths`, in their order there; empty where rows are too few.
    """
    dealt: list[list[int]] = [[] for _ in range(processes)]
    loads = [0] * processes
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        process = min(range(processes), key=lambda process: (loads[process], process))
        dealt[process].append(row)
        loads[process] += lengths[row]
    return tuple(tuple(sorted(rows)) for rows in dealt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one process computes of a step."""

    parts: Sequence[Any]
    """Its parts. Every process has as many: the last ones may be fillers."""
    fillers: int
    """How many of them count nothing: they keep the process in step with busier ones."""
    totals: Totals
    """What the parts of all processes hold."""

    @property
    def own(self) -> int:
        """How many of the parts count."""
        return len(self.parts) - self.fillers


def share_of(task: Task, examples: Sequence[Example], limits: BatchLimits, gang: Gang) -> Share:
    """Returns what this process computes of some rows; collective."""
    lengths = [len(example.tokens_T) for example in examples]
    own = [examples[row] for row in deal(lengths, gang.size)[gang.rank]] if not gang.is_alone else examples
    parts = task.parts(own, limits) if own else []
    totals = Totals()
    totals.add(parts)
    told = gang.gather([len(parts), totals.count, totals.tokens, totals.computed_tokens, totals.supervised_tokens])
    longest, *_ = map(max, zip(*told, strict=True))
    fillers = int(longest) - len(parts)
    if fillers:
        shortest = min(examples, key=lambda example: len(example.tokens_T))
        parts = [*parts, *[*task.parts([shortest], limits)] * fillers]
    _, count, tokens, computed_tokens, supervised_tokens = (int(sum(column)) for column in zip(*told, strict=True))
    return Share(
        parts=parts,
        fillers=fillers,
        totals=Totals(count=count, tokens=tokens, computed_tokens=computed_tokens, supervised_tokens=supervised_tokens),
    )
