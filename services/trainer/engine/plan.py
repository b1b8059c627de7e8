"""Which rows a step learns from: a pure function, so that the data state of a run is its step number.

Rows are shuffled anew in each pass over them. The order comes from a keyed hash and not from a random number generator:
it depends on no library's version, and nothing has to be saved for a resume.
"""

import functools
import hashlib
import math
from dataclasses import dataclass


def plan(seed: int, epoch: int, step: int, *, rows: int, rows_per_step: int) -> tuple[int, ...]:
    """Returns the rows of one step, as indices into the rows in file order.

    Args:
        seed: Of the run, 0 <= seed < 2^64.
        epoch: Pass over the rows, from 0.
        step: Step inside the pass, from 0; the last step of a pass may have fewer rows.
        rows: Rows to learn from, >= 1.
        rows_per_step: Rows behind one optimiser step, >= 1.
    """
    order = _order(seed, epoch, rows)
    return order[step * rows_per_step : (step + 1) * rows_per_step]


@functools.lru_cache(maxsize=2)  # the pass at hand and, around its end, the next one
def _order(seed: int, epoch: int, rows: int) -> tuple[int, ...]:
    key = seed.to_bytes(8, "little") + epoch.to_bytes(8, "little")

    def rank(row: int) -> bytes:
        return hashlib.blake2b(row.to_bytes(8, "little"), digest_size=16, key=key).digest()

    return tuple(sorted(range(rows), key=rank))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """The rows of every step of a run."""

    seed: int
    """Of the run, 0 <= seed < 2^64."""
    rows: int
    """Rows to learn from, >= 1."""
    rows_per_step: int
    """Rows behind one optimiser step, >= 1."""
    total_steps: int
    """Steps of the whole run, >= 1."""

    def rows_of(self, step: int) -> tuple[int, ...]:
        """Returns the rows of a step, 1 <= step <= total_steps."""
        epoch, inside = divmod(step - 1, steps_per_epoch(self.rows, self.rows_per_step))
        return plan(self.seed, epoch, inside, rows=self.rows, rows_per_step=self.rows_per_step)

    def epochs_after(self, step: int) -> float:
        """Returns how many passes over the rows are done after a step, with fraction."""
        epoch, inside = divmod(step, steps_per_epoch(self.rows, self.rows_per_step))
        return epoch + min(1.0, inside * self.rows_per_step / self.rows)


def steps_per_epoch(rows: int, rows_per_step: int) -> int:
    """Returns the steps of one pass over the rows."""
    return math.ceil(rows / rows_per_step)
