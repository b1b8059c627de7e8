"""One import from its address to stored blobs and a manifest."""

import asyncio
import shutil
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from services.grpckit.errors import Reason, ServiceError
from services.grpckit.logging import get_logger
from services.registry.blobs import transfers
from services.registry.library import Library, now_us
from services.registry.manifests import MOST_FILES
from services.registry.sources import allowances, child, jobs, staging
from services.registry.sources.origin import Source
from services.registry.sources.parts import CHUNK_BYTES
from services.registry.sources.settings import SourceSettings
from services.registry.sources.staging import Staging, Stored
from services.registry.sources.wanted import Ask
from tuneforge.manifest import Manifest, ManifestFile
from tuneforge.names import BlobName

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an import is."""

    file: str = ""
    file_bytes: int = 0
    file_size_bytes: int = 0
    files_done: int = 0
    files: int = 0
    bytes_done: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """All files of an import, stored as blobs of the project."""

    manifest: Manifest
    source: Source


@dataclass
class _Tally:
    """What the steps of the child add up to."""

    sizes: dict[str, int] = field(default_factory=dict)
    stored: dict[str, Stored] = field(default_factory=dict)
    revision: str = ""

    def progress(self, path: str = "", done: int = 0) -> Progress:
        """Returns how far it is, while a file arrives or between two."""
        known = all(self.sizes.values())
        return Progress(
            file=path,
            file_bytes=done,
            file_size_bytes=self.sizes.get(path, 0),
            files_done=len(self.stored),
            files=len(self.sizes),
            bytes_done=sum(each.size_bytes for each in self.stored.values()) + done,
            size_bytes=sum(self.sizes.values()) if known else 0,
        )


@dataclass
class _Held:
    """A staging folder that imports of the same content want, one after the other."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Imports:
    """The imports of one registry.

    Args:
        library: Where blobs go.
        settings: Limits, and what may be fetched.
        data: The registry's data folder.
        reserve_bytes: Space on the disk that imports leave free.
    """

    def __init__(self, library: Library, settings: SourceSettings, data: Path, *, reserve_bytes: int) -> None:
        self._library = library
        self._settings = settings
        self._data = data
        self._reserve_bytes = reserve_bytes
        self.staging = Staging(data / "imports")
        self._running = 0
        self._held: dict[Path, _Held] = {}

    def prepare(self) -> int:
        """Makes the folder and sweeps what was forgotten; returns how many imports."""
        return self.staging.prepare(kept_s=self._settings.kept_s)

    async def fetch(self, ask: Ask) -> AsyncGenerator[Progress | Fetched]:
        """Yields how far it is and at last the files; to be closed.

        Who goes on after the files has made a version of them: what the import left is removed then. Until then nobody
        else fetches the same.

        Raises:
            ServiceError: `URL_NOT_ALLOWED`, `INVALID_FIELD`, `SOURCE_*`, `TOO_MANY_CALLS`, `DISK_FULL`.
        """
        wanted = replace(ask.wanted, largest_bytes=self._settings.largest_bytes, most_files=MOST_FILES)
        allowed = await self._library.transfer(self._load)
        address, job = jobs.job_of(allowed, replace(ask, wanted=wanted))
        place = self._place(ask)
        with self._slot(place) as lock:
            async with lock:
                await self._library.transfer(lambda: place.mkdir(parents=True, exist_ok=True))
                have = await self._have(ask.project, place)
                job = replace(job, folder=str(place), have={path: each.tag for path, each in have.items()})
                tally = _Tally()
                async with aclosing(child.steps(job, limit_s=self._settings.limit_s)) as steps:
                    async for step in steps:
                        yield await self._take(step, ask.project, place, have, tally)
                manifest = Manifest.of(ManifestFile(s.path, s.sha256, s.size_bytes) for s in tally.stored.values())
                source = Source(uri=address.shown, revision=tally.revision, digest=manifest.digest, time_us=now_us())
                _log.info("fetched", uri=source.uri, revision=source.revision, files=len(manifest.files))
                yield Fetched(manifest=manifest, source=source)
                await self._library.transfer(staging.discard, place)

    async def forget(self, ask: Ask) -> None:
        """Removes what an import left that was answered before, unless the same is being fetched for somebody else."""
        place = self._place(ask)
        if place not in self._held:
            await self._library.transfer(staging.discard, place)

    def _place(self, ask: Ask) -> Path:
        wanted = ask.wanted
        words = (wanted.split, wanted.config)
        return self.staging.place(ask.project, ask.uri, ask.connection, wanted.kind, *words, *wanted.include)

    def _load(self) -> allowances.Allowances:
        try:
            return allowances.load(self._settings.file)
        except allowances.AllowancesUnreadable as error:
            _log.error("the operator's file of sources is wrong", problem=str(error))
            raise ServiceError(
                Reason.URL_NOT_ALLOWED, "the operator's settings of sources are wrong at the moment; tell the operator"
            ) from None

    @contextmanager
    def _slot(self, place: Path) -> Iterator[asyncio.Lock]:
        """Gives the lock of one staging folder, and counts the import against the limit."""
        if self._running >= self._settings.at_once:
            raise ServiceError(
                Reason.TOO_MANY_CALLS, f"{self._running} imports run already, which is the limit", retry_after_s=5.0
            )
        self._running += 1
        held = self._held.setdefault(place, _Held())
        held.users += 1
        try:
            yield held.lock
        finally:
            self._running -= 1
            held.users -= 1
            if not held.users:
                del self._held[place]

    async def _have(self, project: str, place: Path) -> dict[str, Stored]:
        """Returns the files that an earlier try stored, as far as they are stored still."""
        noted = await self._library.transfer(staging.read_journal, place)
        return {
            path: stored
            for path, stored in noted.items()
            if stored.tag and await transfers.stored_size(self._library, BlobName(project, stored.sha256)) is not None
        }

    async def _take(
        self, step: dict[str, Any], project: str, place: Path, have: dict[str, Stored], tally: _Tally
    ) -> Progress:
        """Takes one step of the child."""
        path = step.get("path", "")
        match step["step"]:
            case "listed":
                tally.sizes = {file["path"]: file["size_bytes"] for file in step["files"]}
                tally.revision = step["revision"]
                stored_bytes = sum(each.size_bytes for name, each in have.items() if name in tally.sizes)
                self._require_room(sum(tally.sizes.values()) - stored_bytes)
            case "bytes":
                return tally.progress(path, step["done"])
            case "kept":
                tally.stored[path] = have[path]
            case "file":
                part = place / step["place"]
                await _store(self._library, project, part, step["sha256"], step["size_bytes"])
                stored = Stored(path, step["tag"], step["sha256"], step["size_bytes"])
                await self._library.transfer(staging.note_stored, place, stored, part)
                tally.stored[path] = stored
        return tally.progress()

    def _require_room(self, size_bytes: int) -> None:
        free = shutil.disk_usage(self._data).free - self._reserve_bytes
        if size_bytes > free:
            raise ServiceError(
                Reason.DISK_FULL,
                f"the registry's disk has no room for {size_bytes} more bytes",
                metadata={"needed_bytes": str(size_bytes)},
            )


async def _store(library: Library, project: str, part: Path, sha256: str, size_bytes: int) -> None:
    """Stores a fetched file as a blob of the project; the blob store hashes it once more."""
    if await transfers.stored_size(library, BlobName(project, sha256)) is not None:
        return
    offset = await library.transfer(library.parts.committed_bytes, project, sha256)

    async def chunks() -> AsyncGenerator[bytes]:
        file = await library.open(_open_at, part, offset)
        try:
            while chunk := await library.transfer(file.read, CHUNK_BYTES):
                yield chunk
        finally:
            library.close_later(file)

    async with aclosing(chunks()) as pieces:
        arrival = transfers.Arrival(project=project, key=sha256, size_bytes=size_bytes, offset=offset, sha256=sha256)
        await transfers.receive(library, arrival, pieces)


def _open_at(path: Path, offset: int) -> Any:
    file = path.open("rb", buffering=0)
    file.seek(offset)
    return file
