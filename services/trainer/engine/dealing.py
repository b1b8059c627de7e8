"""Which rows of a step each process of a gang computes: a pure function, so that a resume deals them out again."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.trainer.engine.batches import BatchLimits, MicroBatch, micro_batches
from services.trainer.engine.corpus import Example
from services.trainer.engine.gang import Gang


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

    batches: Sequence[MicroBatch]
    """Its micro-batches. Every process has as many: the last ones may be fillers."""
    fillers: int
    """How many of them count nothing: they keep the process in step with busier ones."""
    tokens: int
    """Tokens of all processes, filling left out."""
    supervised_tokens: int
    """Tokens of all processes that the loss counts."""

    @property
    def own(self) -> int:
        """How many of the micro-batches count."""
        return len(self.batches) - self.fillers


def share_of(examples: Sequence[Example], limits: BatchLimits, gang: Gang) -> Share:
    """Returns what this process computes of some rows; collective."""
    lengths = [len(example.tokens_T) for example in examples]
    own = [examples[row] for row in deal(lengths, gang.size)[gang.rank]] if not gang.is_alone else examples
    batches = micro_batches(own, limits) if own else []
    tokens, supervised = sum(batch.tokens for batch in batches), sum(len(batch.targets_S) for batch in batches)
    told = gang.gather([len(batches), tokens, supervised])
    fillers = int(max(row[0] for row in told)) - len(batches)
    if fillers:
        shortest = min(examples, key=lambda example: len(example.tokens_T))
        batches = [*batches, *micro_batches([shortest], limits) * fillers]
    return Share(
        batches=batches,
        fillers=fillers,
        tokens=int(sum(row[1] for row in told)),
        supervised_tokens=int(sum(row[2] for row in told)),
    )
