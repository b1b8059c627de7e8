"""Results of pure functions, remembered by the very objects that they were made from, and objects that stay as such."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
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


class Unchanged(Generic[T]):
    """What was found last by question, for as long as nothing else is found: `Remembering` knows it by that.

    Args:
        is_alike: Whether the same follows from two.
    """

    def __init__(self, is_alike: Callable[[T, T], bool]) -> None:
        self._is_alike = is_alike
        self._found: OrderedDict[Hashable, T] = OrderedDict()

    def of(self, question: Hashable, found: T) -> T:
        """Returns the object that was found first, of those since then that are alike."""
        before = self._found.pop(question, found)
        kept = self._found[question] = before if self._is_alike(before, found) else found
        if len(self._found) > KEPT:
            self._found.popitem(last=False)
        return kept
