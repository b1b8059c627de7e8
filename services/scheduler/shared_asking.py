"""One question for all who ask the same thing at the same time.

Many submits name the same base and the same data. Whoever asks while the same question is on its way does not get that
answer, which may be older than their question, but shares the next one with all who came meanwhile. So an answer is
never older than its question - a revocation is noticed by the first submit after it - and a peer is asked the same
thing once at a time, however many submits there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from services.grpckit import context

T = TypeVar("T")

_Key = tuple[str, Hashable]
"""For whom, and the question."""


class SharedAsking(Generic[T]):
    """Questions by what they are about. For one event loop."""

    def __init__(self) -> None:
        self._next: dict[_Key, asyncio.Task[T]] = {}
        """Questions that are not on their way yet: whoever comes joins."""
        self._asked: dict[_Key, asyncio.Task[T]] = {}

    async def of(self, question: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        """Returns the answer to a question, asked after this call began.

        Args:
            question: What it is about; the same one has the same answer.
            ask: Asks; without a caller's deadline, since many may wait for it.

        Raises:
            Exception: what `ask` raises.
        """
        call = context.current_or_none()
        key = (call.actor if call is not None else "", question)
        task = self._next.get(key)
        if task is None:
            task = self._next[key] = asyncio.create_task(self._ask(key, ask))
        return await asyncio.shield(task)  # one that leaves takes nobody's answer away

    async def _ask(self, key: _Key, ask: Callable[[], Awaitable[T]]) -> T:
        if (before := self._asked.get(key)) is not None:
            await asyncio.wait({before})
        else:
            await asyncio.sleep(0)  # those whose requests came together are all here after it
        task = self._asked[key] = self._next.pop(key)
        try:
            with context.background("scheduler.lookup", actor=key[0]):
                return await ask()
        finally:
            if self._asked.get(key) is task:
                del self._asked[key]

    async def close(self) -> None:
        """Ends what is on its way."""
        tasks = [*self._next.values(), *self._asked.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
