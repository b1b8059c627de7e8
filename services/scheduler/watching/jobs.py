"""`WatchJobs`: a snapshot in pages, then changes, from one place in the order of all changes.

Where a job stands in that order moves with each of its changes, so whoever goes along it meets each job once, as it is
now. A snapshot is of one change: it leaves out what has changed since, and what follows it brings exactly that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from services.grpckit.errors import FieldViolation, ServiceError, invalid_fields
from services.scheduler.broadcast import Broadcast
from services.scheduler.ledger import Ledger
from services.scheduler.lifecycle.filters import JobFilter, matches
from services.scheduler.records import Job
from services.scheduler.store import changes, watched_jobs
from services.scheduler.watching.feed import Changed, Feed
from services.scheduler.watching.tokens import BadToken, Place, read_place, scope_of, write_place
from services.scheduler.wire import changes as wire

DEFAULT_BATCH = 100
LARGEST_BATCH = 1000
MESSAGES_SHARED = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which jobs a watcher asks for."""

    projects: frozenset[str] | None
    """Of these projects; None: of all."""
    filter: JobFilter = field(default_factory=JobFilter)

    def is_of(self, job: Job) -> bool:
        """Returns whether a job is of the watch, as far as nothing that happens to it can change that."""
        always = replace(self.filter, states=frozenset(), base="", ended_from_ms=None, ended_before_ms=None)
        return self._is_of_projects(job) and matches(job, always)

    def shows(self, job: Job) -> bool:
        """Returns whether a job is to be shown as it is now."""
        return self._is_of_projects(job) and not job.is_removed and matches(job, self.filter)

    def _is_of_projects(self, job: Job) -> bool:
        return self.projects is None or job.name.project in self.projects


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsRequest:
    """What a watcher of many jobs asks for."""

    wanted: Wanted
    scope: tuple[str, ...]
    """What a token is good for, as texts: parent, projects, filter."""
    resume_token: str = ""
    max_batch: int = 0
    """Most jobs in one message, 1 to 1000; 0: 100."""
    skip_snapshot: bool = False


class JobsWatches:
    """Serves watchers of many jobs.

    Args:
        ledger: The database.
        broadcast: Says that the server drains.
        feed: The newest changes.
        heartbeat_s: Longest silence, in seconds.
    """

    def __init__(self, ledger: Ledger, broadcast: Broadcast, feed: Feed, heartbeat_s: float) -> None:
        self.ledger = ledger
        self.broadcast = broadcast
        self.feed = feed
        self.heartbeat_s = heartbeat_s
        self._shared: dict[tuple[int, Place, tuple[int, int]], tuple[bytes, Place]] = {}
        self._shared_generation = 0

    async def watch(self, request: JobsRequest, database: str) -> AsyncGenerator[wire.Message | bytes, None]:
        """Yields the messages of one watch.

        Args:
            request: What is asked for.
            database: Identity of the database, which the tokens are of.

        Raises:
            ServiceError: INVALID_FIELD or INVALID_RESUME_TOKEN, before the first message.
        """
        if request.max_batch > LARGEST_BATCH:
            problem = f"is {request.max_batch}: use 1 to {LARGEST_BATCH}, or 0 for {DEFAULT_BATCH}"
            raise invalid_fields([FieldViolation("max_batch", problem)])
        scope = scope_of(database, *request.scope)
        with self.feed.listen():
            await self.feed.refresh()
            place = await self._begin(request, scope)
            watcher = _Watcher(self, request, scope, place)
            async with aclosing(watcher.run()) as messages:
                async for message in messages:
                    yield message

    async def _begin(self, request: JobsRequest, scope: int) -> Place:
        newest = await self.ledger.read(changes.newest)
        if not request.resume_token:
            return Place(newest, _LAST if request.skip_snapshot else 0, is_snapshot=not request.skip_snapshot)
        try:
            place = read_place(request.resume_token, scope)
        except BadToken as error:
            message = f"the resume token is not good here: {error}; start without a token"
            raise ServiceError("INVALID_RESUME_TOKEN", message, metadata={"parent": request.scope[0]}) from error
        if place.change > newest:
            raise ServiceError(
                "CURSOR_OUT_OF_RANGE",
                f"the resume token stands at change {place.change}, the database ends at {newest}",
                metadata={"newest_change": str(newest)},
            )
        return place

    def message_of(
        self, request: JobsRequest, scope: int, place: Place, found: Sequence[Changed]
    ) -> tuple[bytes, Place]:
        """Returns the message of changes and the place after it, built once for all who stand at the same place."""
        if self._shared_generation != self.feed.generation or len(self._shared) >= MESSAGES_SHARED:
            self._shared.clear()
            self._shared_generation = self.feed.generation
        key = scope, place, found[-1].place
        message = self._shared.get(key)
        if message is None:
            message = self._shared[key] = _build(request.wanted, scope, place, found)
        return message


class _Watcher:
    """One open watch: a place that moves along the order of changes."""

    def __init__(self, watches: JobsWatches, request: JobsRequest, scope: int, place: Place) -> None:
        self._watches = watches
        self._request = request
        self._scope = scope
        self._place = place
        self._limit = request.max_batch or DEFAULT_BATCH

    async def run(self) -> AsyncGenerator[wire.Message | bytes, None]:
        """Yields messages until the server drains."""
        feed, told = self._watches.feed, self._place
        while True:
            if self._watches.broadcast.is_draining:
                yield wire.draining(self._token())
                return
            if self._place.is_snapshot:
                yield await self._page()
                told = self._place
                continue
            changed = feed.changed
            found = await self._changes()
            if found:
                content, self._place = self._watches.message_of(self._request, self._scope, self._place, found)
                if content:
                    yield content
                    told = self._place
                continue
            # A token moves on also when much went by that was not asked for, so that a resume does not read it again.
            if await self._is_silent(changed) or told.change + _QUIET_CHANGES < self._place.change:
                yield wire.bookmark(self._token())
                told = self._place

    async def _page(self) -> wire.Message:
        """Returns the next page of the snapshot: its jobs, and the place after it."""
        base, after, wanted = self._place.change, self._place.number, self._request.wanted
        shown: list[Job] = []
        while len(shown) < self._limit:
            limit = self._limit - len(shown)

            def look(db: object, after: int = after, limit: int = limit) -> list[Job]:
                return watched_jobs.not_changed_since(db, base, after, limit)  # type: ignore[arg-type]

            rows = await self._watches.ledger.read(look)
            shown += [job for job in rows if wanted.shows(job)]
            if len(rows) < limit:
                self._place = Place(base, _LAST)
                return wire.snapshot(shown, self._token(), is_last=True)
            after = rows[-1].number
        self._place = replace(self._place, number=after)
        return wire.snapshot(shown, self._token(), is_last=False)

    async def _changes(self) -> Sequence[Changed]:
        place = self._place.change, self._place.number
        found = self._watches.feed.after(place, self._limit)
        if found is None:
            rows = await self._watches.ledger.read(lambda db: watched_jobs.changed_after(db, place, self._limit))
            found = [Changed(job=job, state_change=job.changes.newest) for job in rows]
        return found

    async def _is_silent(self, changed: asyncio.Event) -> bool:
        try:
            async with asyncio.timeout(self._watches.heartbeat_s):
                await changed.wait()
        except TimeoutError:
            return True
        return False

    def _token(self) -> str:
        return write_place(self._scope, self._place)


def _build(wanted: Wanted, scope: int, place: Place, found: Sequence[Changed]) -> tuple[bytes, Place]:
    """Returns the serialised message of changes, empty when none is to be told, and the place after them."""
    after = Place(*found[-1].place)
    told = []
    for changed in found:
        job = changed.job
        if wanted.shows(job):
            told.append(
                wire.shown(job, is_new=job.changes.first > place.change, is_merged=job.changes.previous > place.change)
            )
        elif wanted.is_of(job) and job.changes.first <= place.change < changed.state_change:  # it may be shown there
            told.append(wire.outside(job))
    return wire.changes(told, write_place(scope, after)) if told else b"", after


_LAST = 2**63 - 1
"""Beyond the number of every job."""
_QUIET_CHANGES = 1000
"""Changes that were not asked for after which a token is told before the heartbeat."""
