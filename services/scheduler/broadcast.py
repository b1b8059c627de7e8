"""Wakes watchers when events were committed, and lets them share the newest ones in memory.

Nothing here is the truth: a watcher reads from its own cursor, from the shared chunks when they reach it and else from
the log on disk, so a missed or late wake-up costs time and never an event. Memory is bounded by the number of watched
jobs, not by the number or the speed of their watchers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from services.scheduler.watching.records import Chunk

CHUNKS_SHARED = 32
"""Newest chunks kept a job: eight seconds of flushes at four a second; who is further behind reads the disk."""


class Topic:
    """What the watchers of one job share."""

    def __init__(self) -> None:
        self.latest_seq = 0
        """Number of the newest event that is known here; 0: nothing was committed since the first watcher came."""
        self.is_ended = False
        """Whether the job came to its end since the first watcher came."""
        self.listeners = 0
        self._changed = asyncio.Event()
        self._chunks: deque[Chunk] = deque(maxlen=CHUNKS_SHARED)

    @property
    def changed(self) -> asyncio.Event:
        """Set at the next change; take it before reading, or a change in between is slept through."""
        return self._changed

    def chunk_after(self, cursor: int) -> Chunk | None:
        """Returns the shared chunk that holds event `cursor + 1`, or None."""
        for chunk in reversed(self._chunks):
            if chunk.first_seq <= cursor + 1 <= chunk.last_seq:
                return chunk
        return None

    def add(self, chunk: Chunk) -> None:
        """Shares a committed chunk."""
        self._chunks.append(chunk)
        self.latest_seq = max(self.latest_seq, chunk.last_seq)

    def wake(self) -> None:
        """Wakes everybody who waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()


class Broadcast:
    """The topics of all jobs that are watched just now."""

    def __init__(self) -> None:
        self._topics: dict[int, Topic] = {}
        self.is_draining = False
        self.any_job = asyncio.Event()
        """Set when any job was changed, and when the server drains; whoever waits for it clears it. One reader."""

    @contextmanager
    def listen(self, job: int) -> Iterator[Topic]:
        """Gives the topic of a job for as long as the caller watches it."""
        topic = self._topics.setdefault(job, Topic())
        topic.listeners += 1
        try:
            yield topic
        finally:
            topic.listeners -= 1
            if topic.listeners == 0 and self._topics.get(job) is topic:
                del self._topics[job]

    @property
    def watchers(self) -> int:
        """Number of open watches."""
        return sum(topic.listeners for topic in self._topics.values())

    def publish(self, chunks: Sequence[Chunk], ended: Collection[int]) -> None:
        """Tells the watchers of committed chunks and of jobs that have ended."""
        touched: set[int] = set()
        for chunk in chunks:
            if (topic := self._topics.get(chunk.job)) is not None:
                topic.add(chunk)
                touched.add(chunk.job)
        for job in ended:
            if (topic := self._topics.get(job)) is not None:
                topic.is_ended = True
                touched.add(job)
        for job in touched:
            self._topics[job].wake()

    def drain(self) -> None:
        """Makes every watch end by itself, its token being good at the next start."""
        self.is_draining = True
        self.any_job.set()
        for topic in list(self._topics.values()):
            topic.wake()
