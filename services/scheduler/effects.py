"""Calls to other services that the loop has decided on: each once at a time, again after a wait when it failed."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Coroutine, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from services.grpckit import context
from services.grpckit.errors import ServiceError
from services.grpckit.logging import get_logger
from services.scheduler.backoff import Backoff
from services.scheduler.settings import Timing

_log = get_logger(__name__)


@dataclass(slots=True)
class _Effect:
    backoff: Backoff
    task: asyncio.Task[None] | None = None
    not_before: float = 0.0
    """Loop time before which it is not tried again."""
    touched: float = 0.0
    done: float = -math.inf
    """Loop time of its last success."""
    crashes: int = 0
    """Times in a row that it raised what is no answer of a peer."""


class Effects:
    """The running and waiting effects, by key.

    Args:
        timing: First and longest wait.
        chance: Source of jitter.
        poke: Wakes the loop when an effect has ended or may be tried again.
    """

    def __init__(self, timing: Timing, chance: random.Random, poke: Callable[[], None]) -> None:
        self._timing = timing
        self._chance = chance
        self._poke = poke
        self._effects: dict[Hashable, _Effect] = {}
        self.looked = -math.inf
        """Loop time at which the look began that is acted on: what has succeeded since is not in it, nor done again."""
        self.on_crash: Callable[[Hashable, int, Exception], None] = lambda _key, _crashes, _error: None
        """Called when an effect raised what is no answer of a peer: its key, how often in a row, and what."""

    def run(
        self,
        key: Hashable,
        make: Callable[[], Coroutine[Any, Any, None]],
        again_s: float = 0.0,
        *,
        after: Iterable[Hashable] = (),
    ) -> None:
        """Runs an effect unless it runs already or waits for its next try.

        Args:
            key: What it is and to what; the loop decides on the same key again and again until it is done.
            make: Makes the call.
            again_s: Shortest time in seconds between two successes.
            after: It does not begin while one of these runs; the loop is woken when that has ended.
        """
        if any((other := self._effects.get(each)) is not None and other.task is not None for each in after):
            return
        effect = self._touched(key)
        if effect.task is None and effect.not_before <= effect.touched and effect.done <= self.looked:
            effect.task = asyncio.create_task(self._run(key, effect, make, again_s))

    def done(self, key: Hashable) -> None:
        """Notes that somebody else has done it just now."""
        effect = self._touched(key)
        effect.done = effect.touched

    def _touched(self, key: Hashable) -> _Effect:
        effect = self._effects.get(key)
        if effect is None:
            backoff = Backoff(self._timing.retry_first_s, self._timing.retry_longest_s, self._chance)
            effect = self._effects[key] = _Effect(backoff)
        effect.touched = asyncio.get_running_loop().time()
        return effect

    async def _run(
        self, key: Hashable, effect: _Effect, make: Callable[[], Coroutine[Any, Any, None]], again_s: float
    ) -> None:
        loop = asyncio.get_running_loop()
        wait_s = again_s
        try:
            with context.background("scheduler.loop"):
                await make()
            effect.backoff.reset()
            effect.crashes, effect.done = 0, loop.time()
        except ServiceError as error:
            wait_s = max(effect.backoff.next_s(), error.retry_after_s or 0.0)
            wait_s = min(wait_s, self._timing.retry_longest_s)
            problem = f"{error.reason}: {error.message}"
            _log.info("an effect is tried again", effect=str(key), problem=problem, wait_s=wait_s)
        except Exception as error:  # noqa: BLE001 - one effect that fails must not stop the loop, nor spin it
            wait_s = self._timing.retry_longest_s
            _log.error("an effect failed", effect=str(key), exc_info=True)
            effect.crashes += 1
            self.on_crash(key, effect.crashes, error)
        finally:
            effect.task = None
            effect.not_before = loop.time() + wait_s
            self._poke()  # others may wait for its end
            if wait_s > 0.0:
                loop.call_later(wait_s, self._poke)

    def forget_old(self, before: float) -> None:
        """Drops what was not decided on since a loop time: it is done."""
        old = [key for key, effect in self._effects.items() if effect.task is None and effect.touched < before]
        for key in old:
            del self._effects[key]

    async def close(self) -> None:
        """Cancels what runs and waits for it."""
        tasks = [effect.task for effect in self._effects.values() if effect.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
