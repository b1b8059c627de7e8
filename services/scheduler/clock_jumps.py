"""Jumps of the database's clock: somebody sets it, or a machine sleeps.

Leases, waits before a retry, times to live and the device time of what runs are lengths of time, kept as moments. The
loop compares how far the clock has come with a steady one. Where they differ, the moments are moved by as much, so that
each length stays what it was, forward and backward. Moments that a person has named - a deadline, a start, the first of
a month - stay where they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from services.grpckit.logging import get_logger
from services.scheduler.ledger import Ledger
from services.scheduler.store import clocks

_log = get_logger(__name__)

TOLERANCE_MS = 2_000
"""What a clock may be off before it has jumped: more than it is slewed between two looks, less than a lease."""


class Seen(Protocol):
    """What was seen of the database."""

    @property
    def now_ms(self) -> int:
        """The database's time in it."""


S = TypeVar("S", bound=Seen)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()  # it is virtual in simulations


@dataclass(slots=True, kw_only=True)
class ClockJumps:
    """Notices jumps, and moves what is kept by as much."""

    ledger: Ledger
    ttl_ms: int
    """How long a lease lasts."""
    newest: int
    """Events of each log that are never thinned out."""
    steady: Callable[[], float] = _loop_time
    """Seconds by a clock that nobody sets."""
    _last: tuple[int, float, float] | None = None
    """The database's time at the last look, and the steady clock before and after it."""

    async def watched(self, look: Callable[[], Awaitable[S]]) -> S:
        """Returns what a look sees; after a jump what a second one sees, once everything was moved."""
        began = self.steady()
        seen = await look()
        if jump_ms := self._jump_ms(began, seen.now_ms):
            _log.warning("the database's clock has jumped; leases and waits go on as they were", seconds=jump_ms / 1000)
            await self.ledger.write(lambda tx: clocks.move(tx, jump_ms, self.ttl_ms, self.newest))
            began = self.steady()
            seen = await look()
        self._last = seen.now_ms, began, self.steady()
        return seen

    async def has_jumped(self) -> bool:
        """Returns whether the clock has jumped since the last look: what is kept is not moved yet."""
        began = self.steady()
        return bool(self._jump_ms(began, await self.ledger.read_now(lambda _, now_ms: now_ms)))

    def _jump_ms(self, began: float, now_ms: int) -> int:
        """Returns how far the clock is from where it may be; a look may have taken its time."""
        if self._last is None:
            return 0
        last_ms, before, after = self._last
        soonest, latest = last_ms + (began - after) * 1000, last_ms + (self.steady() - before) * 1000
        if now_ms > latest + TOLERANCE_MS:
            return round(now_ms - latest)
        return round(now_ms - soonest) if now_ms < soonest - TOLERANCE_MS else 0
