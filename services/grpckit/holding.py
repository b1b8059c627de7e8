"""Holds at another service for what this service has: made before a thing is, taken back after it is gone.

Nothing is remembered of what was asked. What should be held follows from this service's own database, what is held is
asked, and the difference is made good: at the start, when a call has failed, and now and then. So a process may be
killed anywhere, and calls may fail: a hold too many is taken back, and one too few is made, by the next comparison.
What has ended for ever needs no comparison of everything: what it holds is taken back, together with that of others.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol, TypeVar

from services.grpckit import context
from services.grpckit.errors import Reason, ServiceError
from services.grpckit.logging import get_logger

T = TypeVar("T")
_log = get_logger(__name__)

Held = frozenset[tuple[str, str]]
"""Pairs of a holder and what it holds."""


class HoldKeeper(Protocol):
    """The service that keeps the holds."""

    async def hold(self, holder: str, names: Collection[str]) -> None:
        """Holds; what is held already stays so."""

    async def release(self, held: Mapping[str, Collection[str]]) -> None:
        """Takes back what is named of each holder, or all that it holds; what is not held is as good."""

    async def held(self) -> Held:
        """Returns all that this service holds."""


class Holding:
    """The holds of one service. For one event loop.

    Args:
        keeper: Where they are kept.
        wanted: Reads from the database what should be held now.
        every_s: Seconds between two comparisons when nothing calls for one.
        pause_s: Least seconds between two rounds.
    """

    def __init__(
        self, keeper: HoldKeeper, wanted: Callable[[], Awaitable[Held]], *, every_s: float, pause_s: float
    ) -> None:
        self._keeper = keeper
        self._wanted = wanted
        self._every_s = every_s
        self._pause_s = pause_s
        self._wake = asyncio.Event()
        self._compares = True
        """Whether the next round compares everything."""
        self._gone: set[str] = set()
        """Holders that have ended since the last round."""
        self._making: Counter[str] = Counter()
        self._touched: set[str] = set()
        """Holders that something was made for since the running round began."""
        self._releasing: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[object]] = set()

    def poke(self) -> None:
        """Tells that something may be held that is gone, so that everything is compared soon."""
        self._compares = True
        self._wake.set()

    def ended(self, holders: Collection[str]) -> None:
        """Tells of things that need nothing any more, for ever, so that their holds are taken back soon."""
        self._gone.update(holders)
        self._wake.set()

    async def make(self, holder: str, names: Collection[str], write: Callable[[], Awaitable[T]]) -> T:
        """Holds for a thing, then writes it; a caller who leaves ends neither.

        Args:
            holder: Name of the thing.
            names: What it needs; nothing: the keeper is not asked.
            write: Writes it to the database; when it does not, the hold is taken back later.

        Raises:
            ServiceError: What the keeper answers, then nothing is written; what `write` raises.
        """
        task = asyncio.ensure_future(self._make(holder, names, write))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _make(self, holder: str, names: Collection[str], write: Callable[[], Awaitable[T]]) -> T:
        if not names:  # no hold that a round could take back too early, or leave behind
            return await write()
        self._making[holder] += 1
        self._touched.add(holder)
        self._gone.discard(holder)
        try:
            while (release := self._releasing.get(holder)) is not None:
                await release.wait()
            await self._keeper.hold(holder, names)
            return await write()
        except BaseException:
            self.poke()
            raise
        finally:
            self._making[holder] -= 1
            if not self._making[holder]:
                del self._making[holder]

    async def run_for_ever(self) -> None:
        """Makes rounds until cancelled; one that fails is logged, and the next one compares everything."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self._wake.clear()
            try:
                with context.background("holds"):
                    if self._compares or loop.time() >= due:
                        await self.settle()
                        due = loop.time() + self._every_s
                    else:
                        await self.release_ended()
            except ServiceError as error:
                _log.info("holds are settled later", problem=f"{error.reason}: {error.message}")
                self.poke()
            except Exception:  # noqa: BLE001 - a round that fails must not end the loop
                _log.error("a round of holds failed", exc_info=True)
                self._compares = True
            await asyncio.sleep(self._pause_s)
            try:
                async with asyncio.timeout(self._every_s):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def settle(self) -> None:
        """Compares everything: what is held becomes what should be.

        Raises:
            ServiceError: What the keeper answers.
        """
        self._compares = False
        self._gone.clear()  # what has ended until now is not wanted any more
        self._touched = set(self._making)
        held = await self._keeper.held()  # before what is wanted: what is made meanwhile is in the second only
        wanted = await self._wanted()
        for holder, names in _by_holder(wanted - held).items():
            try:
                await self._keeper.hold(holder, names)
            except ServiceError as error:
                if error.reason != Reason.NOT_FOUND:
                    raise
                _log.warning("what is needed is gone already", holder=holder, problem=error.message)
        await self._release(_by_holder(held - wanted))

    async def release_ended(self) -> None:
        """Takes back what is held for what has ended since the last round.

        Raises:
            ServiceError: What the keeper answers.
        """
        gone, self._gone = self._gone, set()
        self._touched = set(self._making)
        await self._release(dict.fromkeys(sorted(gone), ()))

    async def _release(self, held: Mapping[str, Collection[str]]) -> None:
        free = {holder: names for holder, names in held.items() if holder not in self._touched}
        if len(free) < len(held):  # something may have come to the database after we looked
            self.poke()
        if not free:
            return
        done = asyncio.Event()
        self._releasing |= dict.fromkeys(free, done)
        try:
            await self._keeper.release(free)
        finally:
            for holder in free:
                del self._releasing[holder]
            done.set()

    async def close(self) -> None:
        """Waits for what is being made; to be called when no call comes any more."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _by_holder(pairs: Collection[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for holder, name in sorted(pairs):
        found.setdefault(holder, []).append(name)
    return found
