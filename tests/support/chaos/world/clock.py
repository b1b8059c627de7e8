"""An event loop in which time passes only when nobody has anything to do."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class Stuck(Exception):
    """Everybody waits for something that no clock will bring."""


class _Jump(selectors.SelectSelector):
    """Waits by moving the loop's clock on."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Stuck
        if timeout > 0:
            self.loop.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose seconds cost nothing; threads and sockets do not exist in it."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = _Jump()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        """Returns the virtual seconds since the loop was made."""
        return self.now


def run_virtually(coroutine: Any) -> Any:
    """Runs a coroutine in a fresh virtual loop."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()
