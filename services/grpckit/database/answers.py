"""Answers to reads, kept in memory for as long as nothing was committed that they are made from.

This process is the only one that writes its database, so its count of changes says whether an answer still holds: the
answer that was made before the newest change is never given after that one was acknowledged. Reads that are asked
again and again, such as the version behind an alias, then cost neither SQL nor serialising.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.message import Message
from sqlalchemy import Connection

from services.grpckit.database.database import Database

KEPT_BYTES = 32 * 1024 * 1024
LARGEST_BYTES = 1024 * 1024
"""Larger answers are made anew each time: a few of them would push all others out."""


_Key = tuple[str, str, bytes]
"""Scope, type and content of the request."""


@dataclass(frozen=True, slots=True)
class _Answer:
    content: bytes
    changes: int
    made_s: float


class Answers:
    """The serialised answers of one service to calls that depend on the request, the database and a scope alone.

    Not for answers that depend on the time, or on more of who asks than the scope says. To be used in the event loop's
    thread.

    Args:
        database: The service's database.
        kept_bytes: Most bytes of answers kept; the ones used longest ago go first.
    """

    def __init__(self, database: Database, kept_bytes: int = KEPT_BYTES) -> None:
        self._database = database
        self._kept_bytes = kept_bytes
        self._answers: OrderedDict[_Key, _Answer] = OrderedDict()
        self._size = 0
        self.hits = 0
        """Answers that were given from memory, for tests and metrics."""

    async def of(self, request: Message, read: Callable[[Connection], Message], *, scope: str = "") -> bytes:
        """Returns the answer to a request, serialised, from memory where it still holds.

        Args:
            request: The request; its type and content are the key.
            read: Makes the answer, on a reader's connection.
            scope: What else the answer depends on, such as what the caller may see; answers are kept for each.

        Raises:
            ServiceError: What `read` raises; refusals are not kept.
        """
        key = (scope, request.DESCRIPTOR.full_name, request.SerializeToString(deterministic=True))
        changes, now_s = self._database.changes, time.monotonic()
        found = self._answers.get(key)
        if found and found.changes == changes and now_s - found.made_s < self._database.longest_belief_s:
            self._answers.move_to_end(key)
            self.hits += 1
            return found.content
        content = await self._database.read(lambda connection: read(connection).SerializeToString())
        # The count from before the read: a commit that came in between makes this answer an old one.
        self._keep(key, _Answer(content, changes, now_s))
        return content

    def _keep(self, key: _Key, answer: _Answer) -> None:
        old = self._answers.pop(key, None)
        self._size -= len(old.content) if old else 0
        if len(answer.content) > min(LARGEST_BYTES, self._kept_bytes):
            return
        self._answers[key] = answer
        self._size += len(answer.content)
        while self._size > self._kept_bytes:
            _, oldest = self._answers.popitem(last=False)
            self._size -= len(oldest.content)
