"""`WatchJob`: replay, then follow, from one cursor and on one code path.

A watcher holds a number, never a queue: a slow reader costs one message in memory, and reads the disk when it has
fallen behind what the others share. Messages of whole shared chunks are built once for all watchers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass

from services.grpckit.errors import FieldViolation, ServiceError, invalid_fields, not_found
from services.scheduler.broadcast import Broadcast, Topic
from services.scheduler.ledger import Ledger
from services.scheduler.records import Job
from services.scheduler.resume import BadToken, read_place
from services.scheduler.store import events as event_store
from services.scheduler.store import jobs as job_store
from services.scheduler.watching.records import Chunk
from services.scheduler.wire import watching
from tuneforge.names import JobName

DEFAULT_BATCH = 100
LARGEST_BATCH = 1000
CHUNKS_PER_READ = 64
"""Bounds what one read takes into memory: at most 6400 events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRequest:
    """What a watcher asks for."""

    name: JobName
    resume_token: str = ""
    max_batch: int = 0
    """Most events in one message, 1 to 1000; 0: 100."""


class Watches:
    """Serves watchers.

    Args:
        ledger: The log on disk.
        broadcast: Wakes on commits.
        heartbeat_s: Longest silence, in seconds.
    """

    def __init__(self, ledger: Ledger, broadcast: Broadcast, heartbeat_s: float) -> None:
        self.ledger = ledger
        self.broadcast = broadcast
        self.heartbeat_s = heartbeat_s
        self._shared: dict[tuple[watching.Reader, int, int], watching.Message] = {}

    async def watch(self, request: WatchRequest) -> AsyncGenerator[watching.Message, None]:
        """Yields the messages of one watch.

        Raises:
            ServiceError: NOT_FOUND, INVALID_FIELD, INVALID_RESUME_TOKEN or CURSOR_OUT_OF_RANGE, before the first one.
        """
        if request.max_batch > LARGEST_BATCH:
            problem = f"is {request.max_batch}: use 1 to {LARGEST_BATCH}, or 0 for {DEFAULT_BATCH}"
            raise invalid_fields([FieldViolation("max_batch", problem)])
        job = await self.ledger.read(lambda connection: job_store.find(connection, request.name))
        if job is None:
            raise not_found("job", request.name)
        cursor = _cursor(job, request.resume_token)
        compaction = job.compaction
        reader = watching.Reader(job.uid, compaction.through_seq)
        yield watching.snapshot(job, reader, cursor)
        if cursor < compaction.through_seq:
            yield watching.compacted(reader, compaction, cursor, job.latest_seq)
        with self.broadcast.listen(job.number) as topic:
            watcher = _Watcher(self, job, topic, cursor, request.max_batch or DEFAULT_BATCH)
            async with aclosing(watcher.run()) as messages:
                try:
                    async for message in messages:
                        yield message
                except event_store.LogRemoved:
                    raise not_found("job", request.name) from None

    async def tail(self, job: int, cursor: int) -> event_store.Tail:
        """Reads the log of a job behind a cursor."""
        return await self.ledger.read(lambda db: event_store.read_tail(db, job, cursor, CHUNKS_PER_READ))

    def message_of(self, reader: watching.Reader, chunk: Chunk, latest_seq: int) -> watching.Message:
        """Returns the message of a whole chunk, built once for all who get it while it is the newest."""
        key = (reader, chunk.first_seq, latest_seq)
        message = self._shared.get(key)
        if message is None:
            if len(self._shared) >= 4 * CHUNKS_PER_READ:
                self._shared.clear()
            message = watching.events(reader, [chunk], (chunk.first_seq - 1, chunk.last_seq), latest_seq)
            self._shared[key] = message
        return message


class _Watcher:
    """One open watch: a cursor that moves along the log."""

    def __init__(self, watches: Watches, job: Job, topic: Topic, cursor: int, max_batch: int) -> None:
        self._watches = watches
        self._job = job
        self._topic = topic
        self._cursor = cursor
        self._max_batch = max_batch
        self._latest_seq = job.latest_seq
        self._reader = watching.Reader(job.uid, job.compaction.through_seq)

    async def run(self) -> AsyncGenerator[watching.Message, None]:
        """Yields messages until the job has ended or the server drains."""
        reader = self._reader
        asks_disk = True  # at first, and after a wait without news: what is known here may be old
        while True:
            changed = self._topic.changed
            self._latest_seq = max(self._latest_seq, self._topic.latest_seq)
            if self._watches.broadcast.is_draining:
                yield watching.draining(reader, self._cursor, self._latest_seq)
                return
            if (shared := self._next_shared()) is not None:
                yield shared
                continue
            if asks_disk or self._cursor != self._topic.latest_seq or self._topic.is_ended:
                tail = await self._watches.tail(self._job.number, self._cursor)
                self._latest_seq = max(self._latest_seq, tail.latest_seq)
                if self._cursor < tail.compaction.through_seq != reader.compacted:
                    raise _compacted(self._job, self._cursor, tail.compaction.through_seq)
                for message in self._replay(tail.chunks):
                    yield message
                if event_store.is_ended(tail, self._cursor):
                    yield watching.job_ended(reader, self._cursor, tail.state)
                    return
                if tail.chunks:
                    continue
            asks_disk = not await self._news(changed)
            if asks_disk:
                yield watching.heartbeat(reader, self._cursor, self._latest_seq)

    async def _news(self, changed: asyncio.Event) -> bool:
        try:
            async with asyncio.timeout(self._watches.heartbeat_s):
                await changed.wait()
        except TimeoutError:
            return False
        return True

    def _next_shared(self) -> watching.Message | None:
        chunk = self._topic.chunk_after(self._cursor)
        if chunk is None:
            return None
        is_whole = chunk.first_seq == self._cursor + 1
        if is_whole and chunk.last_seq - self._cursor <= self._max_batch:
            self._cursor = chunk.last_seq
            return self._watches.message_of(self._reader, chunk, self._latest_seq)
        last = min(chunk.last_seq, self._cursor + self._max_batch)
        message = watching.events(self._reader, [chunk], (self._cursor, last), self._latest_seq)
        self._cursor = last
        return message

    def _replay(self, chunks: tuple[Chunk, ...]) -> Iterator[watching.Message]:
        """Yields the messages of chunks that were read, as few as `max_batch` allows, and moves the cursor along."""
        pending = [chunk for chunk in chunks if chunk.last_seq > self._cursor]
        while pending and pending[0].last_seq <= self._reader.compacted:
            chunk = pending.pop(0)
            for left, cursor in watching.left_events(
                self._reader, chunk, self._cursor, self._max_batch, self._latest_seq
            ):
                self._cursor = cursor
                yield left
            self._cursor = chunk.last_seq
        while pending:
            last = min(self._cursor + self._max_batch, pending[-1].last_seq)
            part = [chunk for chunk in pending if chunk.first_seq <= last]
            message = watching.events(self._reader, part, (self._cursor, last), self._latest_seq)
            self._cursor = last
            yield message
            pending = [chunk for chunk in pending if chunk.last_seq > last]


def _cursor(job: Job, token: str) -> int:
    """Returns the number of the last event that a watcher has.

    Raises:
        ServiceError: INVALID_RESUME_TOKEN, CURSOR_OUT_OF_RANGE or COMPACTED.
    """
    if not token:
        return 0
    try:
        cursor, known = read_place(token, job.uid)
    except BadToken as error:
        raise ServiceError(
            "INVALID_RESUME_TOKEN",
            f"the resume token is not good for {job.name}: {error}; start without a token",
            metadata={"name": str(job.name)},
        ) from error
    if cursor > job.latest_seq:
        raise ServiceError(
            "CURSOR_OUT_OF_RANGE",
            f"the resume token stands at event {cursor}, the log of {job.name} ends at {job.latest_seq}",
            metadata={
                "oldest_job_seq": str(job.compaction.through_seq + 1),
                "newest_job_seq": str(job.latest_seq),
            },
        )
    if cursor < job.compaction.through_seq != known:
        raise _compacted(job, cursor, job.compaction.through_seq)
    return cursor


def _compacted(job: Job, cursor: int, through: int) -> ServiceError:
    return ServiceError(
        "COMPACTED",
        f"the reader of {job.name} has everything up to event {cursor}; events up to {through} were thinned out since, "
        "so that some of those that follow are gone; start without a token to get what is left",
        metadata={"oldest_job_seq": str(through + 1), "newest_job_seq": str(job.latest_seq), "name": str(job.name)},
    )
