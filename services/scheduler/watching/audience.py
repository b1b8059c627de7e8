"""Something that is kept up to date for as long as somebody listens."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Audience:
    """Runs while it has listeners, and wakes them all at the next news."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        """Set at the next news; take it before reading."""
        self._listeners = 0
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Keeps it up to date while the block runs."""
        self._listeners += 1
        if self._task is None:
            self._begin()
            self._task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._listeners -= 1
            if self._listeners == 0 and self._task is not None:
                self._task.cancel()
                self._task = None

    def wake(self) -> None:
        """Wakes everybody who waits for news."""
        self.changed.set()
        self.changed = asyncio.Event()

    def _begin(self) -> None:
        """Called when the first one listens."""

    async def _run(self) -> None:
        raise NotImplementedError
