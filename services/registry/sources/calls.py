"""The methods that fetch content from elsewhere."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TypeVar

from sqlalchemy import Connection

from services.registry import collections
from services.registry.calls import Context
from services.registry.datasets.calls import DatasetCalls
from services.registry.datasets.examination import split_of
from services.registry.lineage.store import add_edges
from services.registry.lineage.things import Role
from services.registry.models.calls import ModelCalls
from services.registry.models.facts import described
from services.registry.models.wire import reference_of
from services.registry.sources import store, wire
from services.registry.sources.imports import Fetched, Imports, Progress
from services.registry.sources.origin import Source
from services.registry.sources.wanted import Ask
from services.registry.wire import manifest_to_proto
from tuneforge.names import DatasetName, ModelName
from tuneforge.v1 import datasets_pb2, models_pb2, sources_pb2

Version = TypeVar("Version", models_pb2.ModelVersion, datasets_pb2.DatasetVersion)
ImportRequest = sources_pb2.ImportDatasetVersionRequest | sources_pb2.ImportModelVersionRequest


class _NotAnswered(Exception):
    """The request id was not seen before."""


class SourceCalls(DatasetCalls, ModelCalls):
    """The methods that fetch content from elsewhere; what arrives goes through the methods that an upload goes through.

    Versions are made by `CreateDatasetVersion` and `CreateModelVersion` themselves, so that no rule of theirs can be
    missed.
    """

    imports: Imports
    """Set by `services.registry.__main__`."""

    async def ImportDatasetVersion(
        self, request: sources_pb2.ImportDatasetVersionRequest, context: Context
    ) -> AsyncIterator[sources_pb2.ImportDatasetVersionResponse]:
        """Fetches a data set and makes a version of it."""
        name = DatasetName.parse(request.parent)
        words = {"source_split": request.source_split, "source_config": request.source_config}
        ask = wire.ask_of(name.project, "dataset", request.location, **words)
        version = await self._answered(request, name.project, datasets_pb2.DatasetVersion)
        if version is None:
            split_of(request.split)
            async with aclosing(self._fetch(name, ask)) as steps:
                async for step in steps:
                    if isinstance(step, Fetched):
                        manifest = manifest_to_proto(step.manifest)
                        create = datasets_pb2.CreateDatasetVersionRequest(parent=request.parent, manifest=manifest)
                        if request.HasField("split"):
                            create.split.CopyFrom(request.split)
                        version = await self.CreateDatasetVersion(create, context)
                        version = await self._remembered(request, name.project, version, step.source)
                    else:
                        yield sources_pb2.ImportDatasetVersionResponse(progress=step)
        else:
            await self.imports.forget(ask)
        yield sources_pb2.ImportDatasetVersionResponse(version=version)

    async def ImportModelVersion(
        self, request: sources_pb2.ImportModelVersionRequest, context: Context
    ) -> AsyncIterator[sources_pb2.ImportModelVersionResponse]:
        """Fetches a model and makes a version of it."""
        name = ModelName.parse(request.parent)
        ask = wire.ask_of(name.project, "model", request.location)
        version = await self._answered(request, name.project, models_pb2.ModelVersion)
        if version is None:
            described(request.version, "version.")  # refused here, not after gigabytes were fetched
            if request.base.version:
                await self._base(reference_of(request.base))
            async with aclosing(self._fetch(name, ask)) as steps:
                async for step in steps:
                    if isinstance(step, Fetched):
                        manifest = manifest_to_proto(step.manifest)
                        create = models_pb2.CreateModelVersionRequest(
                            parent=request.parent, manifest=manifest, base=request.base, version=request.version
                        )
                        version = await self.CreateModelVersion(create, context)
                        version = await self._remembered(request, name.project, version, step.source)
                    else:
                        yield sources_pb2.ImportModelVersionResponse(progress=step)
        else:
            await self.imports.forget(ask)
        yield sources_pb2.ImportModelVersionResponse(version=version)

    async def _fetch(
        self, name: DatasetName | ModelName, ask: Ask
    ) -> AsyncGenerator[sources_pb2.ImportProgress | Fetched]:
        """Yields how far it is, and at last the files, whose source is written down by then."""
        await self._database.read(lambda connection: collections.get_collection(connection, name))
        yield wire.progress_to_proto(Progress(), wire.LISTING)
        last = Progress()
        async with aclosing(self.imports.fetch(ask)) as steps:
            async for step in steps:
                if isinstance(step, Progress):
                    last = step
                    yield wire.progress_to_proto(step, wire.FETCHING)
                else:
                    source = step.source
                    await self._database.write(lambda c: store.add_source(c, str(name), source))  # noqa: B023
                    yield wire.progress_to_proto(last, wire.EXAMINING)
                    yield step

    async def _answered(self, request: ImportRequest, project: str, kind: type[Version]) -> Version | None:
        """Returns what was answered to the request id before; None when nothing was.

        Raises:
            ServiceError: `REQUEST_ID_REUSED`.
        """

        def absent(_: Connection) -> Version:
            raise _NotAnswered

        try:
            return await self._change(request, project, kind, absent)
        except _NotAnswered:
            return None

    async def _remembered(self, request: ImportRequest, project: str, version: Version, source: Source) -> Version:
        """Puts the source into the graph, keeps the answer for the request id, and returns the one that is kept."""

        def keep(connection: Connection) -> Version:
            add_edges(connection, version.name, [(source.uri, Role.SOURCE)])
            return version

        return await self._change(request, project, type(version), keep)
