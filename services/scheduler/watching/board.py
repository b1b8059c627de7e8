"""The queue as people see it, made from what the loop saw last, with a number for each thing's newest change.

It lives in memory and is made for as long as somebody looks. A reader holds one number; it gets what is newer, as it
is now. What is gone is remembered for a while; who has been away for longer begins anew.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

from services.grpckit.logging import get_logger
from services.scheduler.broadcast import Broadcast
from services.scheduler.observation import Observation
from services.scheduler.watching.audience import Audience
from services.scheduler.wire.queue_news import Thing, things_of

GONE_KEPT = 10_000
_log = get_logger(__name__)


class Board(Audience):
    """The things of the queue.

    Args:
        look: Gives what the loop saw last; None: nothing yet.
        broadcast: Says that the server drains.
        pause_s: Least seconds between two looks; it is longer where a look takes long.
    """

    def __init__(self, look: Callable[[], Observation | None], broadcast: Broadcast, pause_s: float) -> None:
        super().__init__()
        self._look = look
        self._broadcast = broadcast
        self._pause_s = pause_s
        self._things: dict[str, tuple[int, Thing]] = {}
        self._gone: OrderedDict[str, tuple[int, Thing]] = OrderedDict()
        self._floor = 0
        self.identity = secrets.randbits(63)
        """Tells this start from others."""
        self.version = 0
        self.time_ms = 0

    def knows(self, version: int) -> bool:
        """Returns whether a reader of a version can be told what has changed since."""
        return self._floor <= version <= self.version

    def since(self, version: int) -> tuple[list[Thing], list[Thing]]:
        """Returns what has changed since a version, and what is gone since."""
        news = [thing for number, thing in self._things.values() if number > version]
        return news, [thing for number, thing in self._gone.values() if number > version]

    def update(self) -> bool:
        """Looks; returns whether anything is new."""
        seen = self._look()
        if seen is None:
            return False
        self.time_ms = seen.now_ms
        now = things_of(seen)
        changed = {key: thing for key, thing in now.items() if key not in self._things or self._things[key][1] != thing}
        left = [key for key in self._things if key not in now]
        if not changed and not left and self.version:
            return False
        self.version += 1
        self._take(changed, left)
        return True

    def _take(self, changed: Mapping[str, Thing], left: list[str]) -> None:
        for key, thing in changed.items():
            self._things[key] = self.version, thing
            self._gone.pop(key, None)
        for key in left:
            _, thing = self._things.pop(key)
            self._gone[key] = self.version, thing
        while len(self._gone) > GONE_KEPT:
            _, (self._floor, _) = self._gone.popitem(last=False)

    def _begin(self) -> None:
        self._refresh()  # nobody is shown what was there when the last one left

    def _refresh(self) -> bool:
        try:
            return self.update()
        except Exception:  # noqa: BLE001 - one look that fails must not end what all watchers wait for
            _log.error("the queue could not be shown", exc_info=True)
            return False

    async def _run(self) -> None:
        took_s = 0.0
        while True:
            await asyncio.sleep(max(self._pause_s, 10 * took_s))
            began = time.monotonic()
            if self._refresh() or self._broadcast.is_draining:
                self.wake()
            took_s = time.monotonic() - began
