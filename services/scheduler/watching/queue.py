"""`WatchQueue`: all things of the queue in pages, then those that have changed, as they are now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

from services.grpckit.errors import FieldViolation, invalid_fields
from services.scheduler.broadcast import Broadcast
from services.scheduler.watching.board import Board
from services.scheduler.watching.tokens import BadToken, Place, read_place, scope_of, write_place
from services.scheduler.wire import queue_news as wire

DEFAULT_BATCH = 200
LARGEST_BATCH = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRequest:
    """What a watcher of the queue asks for."""

    parent: str
    projects: frozenset[str] | None
    """Of these projects; None: of all."""
    resume_token: str = ""
    max_batch: int = 0
    """Most things in one message, 1 to 1000; 0: 200."""


class QueueWatches:
    """Serves watchers of the queue.

    Args:
        board: The things of the queue.
        broadcast: Says that the server drains.
        heartbeat_s: Longest silence, in seconds.
    """

    def __init__(self, board: Board, broadcast: Broadcast, heartbeat_s: float) -> None:
        self._board = board
        self._broadcast = broadcast
        self._heartbeat_s = heartbeat_s

    async def watch(self, request: QueueRequest) -> AsyncGenerator[wire.Message, None]:
        """Yields the messages of one watch.

        Raises:
            ServiceError: INVALID_FIELD, before the first message.
        """
        if request.max_batch > LARGEST_BATCH:
            problem = f"is {request.max_batch}: use 1 to {LARGEST_BATCH}, or 0 for {DEFAULT_BATCH}"
            raise invalid_fields([FieldViolation("max_batch", problem)])
        board = self._board
        scope = scope_of(str(board.identity), request.parent)
        with board.listen():
            version = self._begin(request.resume_token, scope)
            while True:
                changed = board.changed
                if self._broadcast.is_draining:
                    yield wire.draining("" if version is None else write_place(scope, Place(version)))
                    return
                if version is not None and not board.knows(version):
                    version = None  # it was so slow that what has gone meanwhile is not known any more
                if board.version and version != board.version:
                    now = board.version
                    for page in self._pages(request, version):
                        yield wire.told(page, write_place(scope, Place(now)) if page.is_last else "")
                    version = now
                    continue
                if await self._is_silent(changed):
                    yield wire.bookmark("" if version is None else write_place(scope, Place(version)))

    def _begin(self, token: str, scope: int) -> int | None:
        """Returns the version that a reader has; None: it begins with a snapshot, as after a restart."""
        if not token:
            return None
        try:
            return read_place(token, scope).change
        except BadToken:
            return None

    def _pages(self, request: QueueRequest, version: int | None) -> Iterator[wire.News]:
        board, limit = self._board, request.max_batch or DEFAULT_BATCH

        def is_shown(thing: wire.Thing) -> bool:
            return not thing.project or request.projects is None or thing.project in request.projects

        things, gone = board.since(version or 0)
        shown = [thing for thing in things if is_shown(thing)]
        left = [] if version is None else [thing for thing in gone if is_shown(thing)]
        time_ms = board.time_ms
        count = max(1, -(-max(len(shown), len(left)) // limit))
        for index in range(count):
            window = slice(index * limit, (index + 1) * limit)
            page = wire.news(shown[window], left[window], time_ms)
            page.begins_snapshot = version is None and index == 0
            page.is_last = index == count - 1
            yield page

    async def _is_silent(self, changed: asyncio.Event) -> bool:
        try:
            async with asyncio.timeout(self._heartbeat_s):
                await changed.wait()
        except TimeoutError:
            return True
        return False
