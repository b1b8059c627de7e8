"""Results of pure functions, remembered by the very objects that they were made from."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

KEPT = 64
"""Results that are kept; those used longest ago go first."""


class Remembering(Generic[T]):
    """Results by the identity of what they were made from, which must never change; for one thread."""

    def __init__(self) -> None:
        self._results: OrderedDict[tuple[int, ...], tuple[tuple[object, ...], T]] = OrderedDict()
        """With the objects themselves: while they live, their identities are nobody else's."""

    def of(self, things: tuple[object, ...], make: Callable[[], T]) -> T:
        """Returns the result for some objects; makes it where it is not kept."""
        key = tuple(map(id, things))
        kept = self._results.get(key)
        if kept is not None:
            self._results.move_to_end(key)
            return kept[1]
        result = make()
        self._results[key] = (things, result)
        if len(self._results) > KEPT:
            self._results.popitem(last=False)
        return result
