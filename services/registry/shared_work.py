"""Work that is done once for all who ask for it, and whose findings are kept for who asks again."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

FINDINGS_KEPT = 256
"""Findings that are kept in memory, so that a call repeated after its deadline finds the work done."""


class SharedWork(Generic[K, V]):
    """Work that goes on or is done, by what it is about. For one event loop."""

    def __init__(self) -> None:
        self._known: OrderedDict[K, asyncio.Future[V]] = OrderedDict()

    async def share(self, key: K, work: Callable[[], Awaitable[V]]) -> V:
        """Returns what was found; calls for the same key share one work, and one who leaves does not end it.

        Args:
            key: All that the findings follow from.
            work: Does it, when nobody has or does. What fails is done again by the next call.
        """
        future = self._known.get(key)
        if future is None:
            future = asyncio.ensure_future(work())
            self._known[key] = future
            if len(self._known) > FINDINGS_KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        try:
            return await asyncio.shield(future)
        except Exception:
            self._known.pop(key, None)
            raise
