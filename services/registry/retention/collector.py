"""Frees what nothing needs: versions whose time has come, uploads given up, blobs without a version, lost objects.

Mark and sweep in two phases. A transaction takes a content out of every table and writes a tombstone for its place;
only then the bytes go, and then the tombstone. A place is never used twice, so a process may be killed anywhere: what
is left is a tombstone, which the next run finishes. Whether a blob is needed is decided inside the transaction that
takes it out, so an upload, a publication or an import at the same moment keeps it, or is told that it is missing.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from sqlalchemy import Connection, delete, exists, select

from services.grpckit.errors import Reason, ServiceError
from services.grpckit.logging import get_logger
from services.registry.blobs import upload_rows
from services.registry.blobs.home import StoredObject, digest_of_place
from services.registry.blobs.opening import claim
from services.registry.blobs.presigned import give_up
from services.registry.blobs.store import Stored, bury, forget_tombstone
from services.registry.library import Library, now_us
from services.registry.retention import deleting, metrics, store
from services.registry.retention.collected import Collected
from services.registry.retention.resources import parse_version
from services.registry.settings import RegistrySettings
from services.registry.tables import BLOB_PLACES, BLOB_TOMBSTONES, BLOB_UPLOADS, BLOB_USES, BLOBS

T = TypeVar("T")
_log = get_logger(__name__)

BATCH = 500
"""Blobs or places in one transaction: others write in between."""
EXPIRATION_ACTOR = "expiration"
"""Who deletes what has expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorSettings:
    """How long things are kept that nothing needs."""

    grace_s: float
    """Seconds since somebody last relied on a blob."""
    upload_kept_s: float
    """Seconds since somebody last went on with an upload, where the project says nothing."""
    every_s: float
    """Seconds between two runs; 0: only when asked to."""


class Collector:
    """The collector of one registry; runs one collection at a time."""

    def __init__(self, library: Library, settings: CollectorSettings) -> None:
        self._library = library
        self._settings = settings
        self._lock = asyncio.Lock()

    async def run_for_ever(self) -> None:
        """Collects by the interval until cancelled; a run that fails is logged, and the next one tries again."""
        while self._settings.every_s:
            await asyncio.sleep(self._settings.every_s)
            try:
                await self.collect()
            except Exception as error:  # noqa: BLE001 - nobody waits for it, and the next run starts from the rows
                metrics.FAILED_RUNS.inc()
                _log.error("the collection failed", error=str(error), exc_info=not isinstance(error, ServiceError))

    async def collect(self, *, validate_only: bool = False) -> Collected:
        """Frees what nothing needs and returns what it was.

        Raises:
            ServiceError: `STORAGE_UNAVAILABLE`, `STORAGE_MISCONFIGURED`: the home cannot be listed; what was freed by
                then stays freed.
        """
        async with self._lock:
            found = Collected(validate_only=validate_only)
            await self._expire(found)
            found.uploads = await self.give_up_uploads(validate_only=validate_only)
            await self._mark(found)
            await self._find_orphans(found)
            await self._sweep(found)
            if not validate_only:
                metrics.show(found)
                _log.info("collected", blobs=found.blobs, contents=found.contents, freed_bytes=found.freed_bytes)
            return found

    # --- versions -----------------------------------------------------------------------------------------------------
    async def _expire(self, found: Collected) -> None:
        time_us = now_us()
        for name in await self._library.database.read(lambda c: store.expired(c, time_us)):
            try:
                if found.validate_only:
                    retention = await self._read(deleting.retention_of, parse_version(name), _everything)
                    if retention.holders:
                        found.held_versions += 1
                        continue
                else:
                    await self._write(_delete_expired, name, time_us)
                found.expired_versions += 1
            except ServiceError as error:
                found.held_versions += error.reason is Reason.IN_USE

    async def _read(self, run: Callable[..., T], *args: object) -> T:
        return await self._library.database.read(lambda connection: run(connection, *args))

    async def _write(self, run: Callable[..., T], *args: object) -> T:
        return await self._library.database.write(lambda connection: run(connection, *args))

    # --- uploads ------------------------------------------------------------------------------------------------------
    async def give_up_uploads(self, *, validate_only: bool = False) -> int:
        """Removes uploads that nobody has gone on with for as long as their project keeps them; returns how many."""
        library, count = self._library, 0
        projects = set(await library.database.read(upload_rows.upload_projects))
        projects.update(await library.transfer(library.parts.projects))
        for project in sorted(projects):
            of_project = await self._read(store.upload_kept_s, project)
            kept_s = self._settings.upload_kept_s if of_project is None else float(of_project)
            stale = await self._read(upload_rows.stale_uploads, project, now_us() - int(kept_s * 1e6))
            count += len(stale)
            if validate_only:
                continue
            for upload in stale:
                if library.objects is not None:
                    await give_up(library, library.objects, upload)
            count += len(await library.transfer(library.parts.sweep, project, kept_s))
        return count

    # --- blobs --------------------------------------------------------------------------------------------------------
    async def _mark(self, found: Collected) -> None:
        cutoff_us = now_us() - int(self._settings.grace_s * 1e6)
        if found.validate_only:
            blobs, contents = await self._read(_would_mark, cutoff_us)
            found.blobs, found.contents, found.freed_bytes = blobs, len(contents), sum(contents)
            return
        while marked := await self._write(_mark, cutoff_us):
            found.blobs += marked

    async def _find_orphans(self, found: Collected) -> None:
        """Lists the home and gives what nothing names to the sweep."""
        await claim(self._library)  # before anything goes for want of a row: the row may be in another database
        oldest_s = now_us() / 1e6 - self._settings.grace_s
        listing = self._library.blobs.listing()
        while True:
            page = await self._library.transfer(_next_page, listing)
            if not page:
                return
            old = [each for each in page if each.modified_s < oldest_s and digest_of_place(each.place)]
            if found.validate_only:
                lost = await self._read(_unnamed, old)
                found.contents += len(lost)
                found.freed_bytes += sum(each.size_bytes for each in lost)
            else:
                lost = await self._write(_bury_unnamed, old)
            found.orphans += len(lost)

    async def _sweep(self, found: Collected) -> None:
        library = self._library
        tombstones = await self._read(_tombstones)
        if found.validate_only:
            found.contents += len(tombstones)
            found.freed_bytes += sum(each.size_bytes for each in tombstones)
            return
        for stored in tombstones:
            try:
                await library.transfer(library.blobs.delete, stored.place)
            except (ServiceError, OSError) as error:
                found.failures += 1
                _log.warning("a content could not be removed", place=stored.place, error=str(error))
                continue
            await self._write(forget_tombstone, stored.place)
            found.contents += 1
            found.freed_bytes += stored.size_bytes


def collector_of(library: Library, settings: RegistrySettings) -> Collector:
    """Returns the collector that the settings ask for."""
    storage = settings.storage
    kept = CollectorSettings(
        grace_s=storage.grace_s, upload_kept_s=settings.upload_kept_s, every_s=storage.collect_every_s
    )
    return Collector(library, kept)


def _everything(_: str) -> bool:
    return True  # the collector works on all projects


def _delete_expired(connection: Connection, name: str, time_us: int) -> None:
    if name not in store.expired(connection, time_us):  # the time was changed meanwhile
        return
    deleting.delete_version(
        connection,
        parse_version(name),
        actor=EXPIRATION_ACTOR,
        reason="its time had come",
        time_us=time_us,
        sight=_everything,
    )


def _unneeded(cutoff_us: int) -> tuple[object, ...]:
    """Returns the conditions under which nobody needs a row of `blobs`."""
    used = exists().where(BLOB_USES.c.project == BLOBS.c.project, BLOB_USES.c.sha256 == BLOBS.c.sha256)
    return BLOBS.c.used_time_us < cutoff_us, ~used


def _mark(connection: Connection, cutoff_us: int) -> int:
    """Takes some blobs out of their projects, and contents that no project has any more out of the tables."""
    conditions = _unneeded(cutoff_us)
    rows = connection.execute(
        select(BLOBS.c.project, BLOBS.c.sha256).where(*conditions).limit(BATCH)  # type: ignore[arg-type]
    ).all()
    for row in rows:
        connection.execute(
            delete(BLOBS).where(BLOBS.c.project == row.project, BLOBS.c.sha256 == row.sha256, *conditions)  # type: ignore[arg-type]
        )
    for sha256 in sorted({row.sha256 for row in rows}):
        _bury_if_unseen(connection, sha256)
    return len(rows)


def _bury_if_unseen(connection: Connection, sha256: str) -> None:
    if connection.execute(select(BLOBS.c.project).where(BLOBS.c.sha256 == sha256).limit(1)).first() is not None:
        return
    row = connection.execute(select(BLOB_PLACES).where(BLOB_PLACES.c.sha256 == sha256)).one_or_none()
    if row is not None:
        bury(connection, Stored(sha256, row.place, row.size_bytes), time_us=now_us())
        connection.execute(delete(BLOB_PLACES).where(BLOB_PLACES.c.sha256 == sha256))


def _would_mark(connection: Connection, cutoff_us: int) -> tuple[int, list[int]]:
    """Returns how many blobs would go, and the sizes of the contents that would go with them."""
    going: dict[str, tuple[int, int]] = {}
    statement = select(BLOBS.c.sha256, BLOBS.c.size_bytes).where(*_unneeded(cutoff_us))  # type: ignore[arg-type]
    for row in connection.execute(statement):
        going[row.sha256] = (going.get(row.sha256, (0, 0))[0] + 1, row.size_bytes)
    sizes = []
    for sha256, (count, size_bytes) in going.items():
        seen = connection.execute(select(BLOBS.c.project).where(BLOBS.c.sha256 == sha256)).all()
        if len(seen) == count:
            sizes.append(size_bytes)
    return sum(count for count, _ in going.values()), sizes


def _next_page(listing: Iterator[StoredObject]) -> list[StoredObject]:
    return list(islice(listing, BATCH))


def _unnamed(connection: Connection, objects: list[StoredObject]) -> list[StoredObject]:
    """Returns those of some objects that no row names."""
    named: set[str] = set()
    places = [each.place for each in objects]
    for table in (BLOB_PLACES, BLOB_UPLOADS, BLOB_TOMBSTONES):
        named.update(connection.execute(select(table.c.place).where(table.c.place.in_(places))).scalars())
    return [each for each in objects if each.place not in named]


def _bury_unnamed(connection: Connection, objects: list[StoredObject]) -> list[StoredObject]:
    lost = _unnamed(connection, objects)
    for each in lost:
        bury(connection, Stored(digest_of_place(each.place), each.place, each.size_bytes), time_us=now_us())
    return lost


def _tombstones(connection: Connection) -> list[Stored]:
    rows = connection.execute(select(BLOB_TOMBSTONES).order_by(BLOB_TOMBSTONES.c.time_us))
    return [Stored(row.sha256, row.place, row.size_bytes) for row in rows]
