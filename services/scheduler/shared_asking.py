"""One question for all who ask the same thing at the same time.

Many submits name the same base and the same data. Whoever asks while the same question is on its way does not get that
answer, which may be older than their question, but shares the next one with all who came meanwhile. So an answer is
never older than its question - a revocation is noticed by the first submit after it - and a peer is asked the same
thing once at a time, however many submits there are. After an answer there is a short rest, in which more come to share
the next question: one takes as much of two processes as the rest of a submit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from services.grpckit import context

T = TypeVar("T")

RESTS, LONGEST_REST_S = 2.0, 0.02
"""A rest is so many times as long as the answer took: less than one caller takes to ask again; and 20 ms at most, for
an answer takes long where many ask, and they wait for longer than that anyway."""

_Key = tuple[str, Hashable]
"""For whom, and the question."""


class SharedAsking(Generic[T]):
    """Questions by what they are about. For one event loop."""

    def __init__(self) -> None:
        self._next: dict[_Key, asyncio.Task[T]] = {}
        """Questions that are not on their way yet: whoever comes joins."""
        self._asked: dict[_Key, asyncio.Task[T]] = {}
        self._over: dict[_Key, asyncio.Event] = {}
        """Set when the next question may be asked, of those that are on their way or rested after."""

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
        if (before := self._over.get(key)) is not None:
            await before.wait()
        else:
            await asyncio.sleep(0)  # those whose requests came together are all here after it
        self._asked[key] = self._next.pop(key)
        over = self._over[key] = asyncio.Event()
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            with context.background("scheduler.lookup", actor=key[0]):
                return await ask()
        finally:
            del self._asked[key]
            loop.call_later(min(LONGEST_REST_S, RESTS * (loop.time() - began)), self._rested, key, over)

    def _rested(self, key: _Key, over: asyncio.Event) -> None:
        del self._over[key]
        over.set()

    async def close(self) -> None:
        """Ends what is on its way."""
        tasks = [*self._next.values(), *self._asked.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
