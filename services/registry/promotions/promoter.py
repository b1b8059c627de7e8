"""Copies and removes in the background; goes on at the next start where a kill ended it."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar, TypeVarTuple, Unpack

from sqlalchemy import Connection

from services.grpckit.errors import ServiceError
from services.grpckit.logging import get_logger
from services.registry.folder import Folder
from services.registry.library import Library, now_us
from services.registry.lineage.revocations import require_usable
from services.registry.models.store import get_model_version
from services.registry.promotions import store
from services.registry.promotions.location import CopiedFile, Location, LocationProblem, Stopped
from services.registry.promotions.resources import (
    REGISTRY,
    Promotion,
    PromotionState,
    copy_label,
    selected,
    visible_manifest,
)
from services.registry.promotions.rules import refusal
from services.registry.promotions.wire import manifest_of_record
from tuneforge.manifest import Manifest
from tuneforge.names import ModelVersionName

_log = get_logger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

COPIES_AT_ONCE = 2
"""Versions that are copied or removed at the same time; the disk or the line is the limit, not these."""
LONGEST_MESSAGE = 1000
"""Characters of what a promotion says of its failure."""


class Promoter:
    """Does the work that promotions ask for.

    Args:
        library: The registry's parts.
        location: Where copies go; None: nowhere.
    """

    def __init__(self, library: Library, location: Location | None) -> None:
        self._library = library
        self._location = location
        self._threads = ThreadPoolExecutor(COPIES_AT_ONCE, thread_name_prefix="registry-promotion")
        self._stopping = threading.Event()
        self._work: dict[ModelVersionName, asyncio.Task[None]] = {}
        self._asked: set[ModelVersionName] = set()
        """What was submitted since its work last looked: the look may have been a moment too early."""

    async def start(self) -> None:
        """Goes on with what an earlier registry left."""
        for promotion in await self._library.database.read(store.unfinished):
            self.submit(promotion.version)

    async def stop(self) -> None:
        """Ends the work in its middle; blocks until the pieces that run are done."""
        self._stopping.set()
        for task in list(self._work.values()):
            task.cancel()
        await asyncio.gather(*self._work.values(), return_exceptions=True)
        await asyncio.to_thread(self._threads.shutdown)

    def location_for(self, version: ModelVersionName) -> Location:
        """Returns where copies go.

        Raises:
            ServiceError: `NOT_PROMOTABLE`: nowhere.
        """
        if self._location is None:
            raise refusal(
                version,
                "has nowhere to go: the operator sets TUNEFORGE_REGISTRY_DEPLOY_LOCATION to a folder or a bucket",
            )
        return self._location

    def submit(self, version: ModelVersionName) -> None:
        """Sees to it that the work on a promotion is done; does nothing when it goes on already."""
        running = self._work.get(version)
        if self._stopping.is_set():
            return
        self._asked.add(version)
        if running is None or running.done():
            self._work[version] = asyncio.create_task(self._run(version))

    async def _run(self, version: ModelVersionName) -> None:
        try:
            while version in self._asked:
                self._asked.discard(version)
                while await self._step(version):  # what was asked for while the step before ran
                    pass
        except (Stopped, asyncio.CancelledError):
            pass
        except Exception:  # noqa: BLE001 - a fault of ours must not end the others' work; the next start tries again
            _log.error("the work on a promotion met a fault", version=str(version), exc_info=True)
        finally:
            if self._work.get(version) is asyncio.current_task():
                del self._work[version]

    async def _step(self, version: ModelVersionName) -> bool:
        """Does the work that the present state asks for; returns whether there was any."""
        promotion = await self._library.database.read(lambda c: store.find_promotion(c, version))
        if promotion is None or promotion.state not in {PromotionState.IN_PROGRESS, PromotionState.DELETING}:
            return False
        try:
            location = self.location_for(version)
            if promotion.state is PromotionState.IN_PROGRESS:
                done = await self._copy(location, promotion)
            else:
                label = copy_label(version, promotion.digest)
                left = await self._in_thread(location.withdraw, promotion.destination, label)
                done = replace(promotion, state=PromotionState.NOT_PROMOTED, message=left[:LONGEST_MESSAGE])
        except (LocationProblem, ServiceError, OSError) as error:
            is_copy = promotion.state is PromotionState.IN_PROGRESS
            state = PromotionState.FAILED if is_copy else PromotionState.COMPLETED
            done = replace(promotion, state=state, message=str(error)[:LONGEST_MESSAGE])
            _log.warning("a promotion failed", version=str(version), state=state.value, problem=str(error))
        await self._finish(promotion, done)
        return True

    async def _manifest_of(self, promotion: Promotion) -> Manifest:
        """Returns the files that belong to a promotion.

        Raises:
            ServiceError: `NOT_FOUND`, `REVOKED`: the version may not be copied any more.
        """

        def read(connection: Connection) -> bytes:
            version = get_model_version(connection, promotion.version)
            require_usable(connection, str(promotion.version))
            return version.content.record

        manifest = selected(manifest_of_record(await self._library.database.read(read)), promotion.patterns)
        if manifest is None or manifest.digest != promotion.digest:
            raise LocationProblem(f"the files of {promotion.version} are not those that were to be promoted")
        return manifest

    async def _copy(self, location: Location, promotion: Promotion) -> Promotion:
        manifest = await self._manifest_of(promotion)
        content = visible_manifest(promotion.version, manifest)
        async with self._library.fetched(manifest) as folder:
            await self._in_thread(
                location.copy, promotion.destination, _files(manifest, folder), content, self._stopping
            )
        try:  # data may have been revoked, or the version deleted, while it was copied
            await self._manifest_of(promotion)
        except ServiceError:
            label = copy_label(promotion.version, promotion.digest)
            await self._in_thread(location.withdraw, promotion.destination, label)
            raise
        return replace(promotion, state=PromotionState.COMPLETED, message="")

    async def _in_thread(self, run: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        """Runs a method of the location; waits for its end also when the work is cancelled."""
        running = asyncio.get_running_loop().run_in_executor(self._threads, run, *args)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            raise

    async def _finish(self, before: Promotion, done: Promotion) -> None:
        """Writes how a step ended, unless something else was asked for meanwhile."""

        def write(connection: Connection) -> None:
            current = store.find_promotion(connection, before.version)
            if current is not None and current.sequence == before.sequence:
                store.change(connection, replace(done, actor=REGISTRY, update_time_us=now_us()))

        await self._library.database.write(write)


def _files(manifest: Manifest, folder: Folder) -> Sequence[CopiedFile]:
    return [
        CopiedFile(path=file.path, source=folder.paths[file.path], sha256=file.sha256, size_bytes=file.size_bytes)
        for file in manifest.files
    ]
