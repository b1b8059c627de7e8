"""Waits between tries that double up to a cap, half of each being chance, so that a fleet does not move in step."""

from __future__ import annotations

import random


class Backoff:
    """The waits of one repeated call.

    Args:
        first_s: Upper bound of the first wait, in seconds.
        longest_s: Upper bound of every wait, in seconds.
        chance: Source of jitter.
    """

    def __init__(self, first_s: float, longest_s: float, chance: random.Random) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._chance = chance
        self._tries = 0

    def next_s(self) -> float:
        """Returns the next wait in seconds."""
        bound: float = min(self._longest_s, self._first_s * 2.0 ** min(self._tries, 32))
        self._tries += 1
        return bound * self._chance.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Begins anew after a success."""
        self._tries = 0
