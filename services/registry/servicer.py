"""`RegistryService`: each method reads its request, calls, and answers. The rules are in the modules that it calls."""
# ruff: noqa: ARG002 - gRPC gives every method a context; who calls is in services.grpckit.context instead

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from sqlalchemy import Connection

from services.grpckit.context import current, require_project
from services.grpckit.errors import FieldViolation, invalid_fields, not_found
from services.grpckit.pages import Page, cut, page_of
from services.grpckit.request_memory import RequestScope, remember
from services.registry import alias_store, datasets, models, requests, store, transfers, wire
from services.registry.blob_files import CHUNK_BYTES
from services.registry.library import Library, now_us
from services.registry.resources import AliasMove, Collection, ModelContent, ModelVersion
from tuneforge.manifest import Manifest
from tuneforge.names import (
    AliasName,
    BlobName,
    DatasetName,
    DatasetVersionName,
    ModelName,
    ProjectName,
    UploadName,
    parse_model_reference,
)
from tuneforge.v1 import aliases_pb2, blobs_pb2, datasets_pb2, models_pb2, registry_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]
Answer = TypeVar("Answer", bound=Message)


class RegistryServicer(registry_pb2_grpc.RegistryServiceServicer):
    """The registry's methods; errors are raised as `ServiceError` and `InvalidName`, see the contract for which."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._database = library.database

    async def _change(
        self, request: Any, project: str, kind: type[Answer], change: Callable[[Connection], Answer]
    ) -> Answer:
        """Makes a change together with the memory of its request id, and returns the first answer to that id."""
        method = request.DESCRIPTOR.name.removesuffix("Request")
        scope = RequestScope(principal=current().principal.name, project=project, method=method)
        body = request.SerializeToString(deterministic=True)

        def run(connection: Connection) -> bytes:
            return remember(
                connection,
                scope=scope,
                request_id=request.request_id,
                request=body,
                make=lambda: change(connection).SerializeToString(),
            )

        return kind.FromString(await self._database.write(run))

    # --- data sets ----------------------------------------------------------------------------------------------------
    async def CreateDataset(self, request: datasets_pb2.CreateDatasetRequest, context: Context) -> datasets_pb2.Dataset:
        """Creates a data set."""
        project = ProjectName.parse(request.parent).project
        requests.check_new_collection("dataset", request.dataset_id, request.dataset.description)
        dataset = _new(DatasetName(project, request.dataset_id), request.dataset.description)
        return await self._change(
            request,
            project,
            datasets_pb2.Dataset,
            lambda connection: wire.dataset_to_proto(store.create_collection(connection, dataset)),
        )

    async def GetDataset(self, request: datasets_pb2.GetDatasetRequest, context: Context) -> datasets_pb2.Dataset:
        """Returns a data set."""
        name = DatasetName.parse(request.name)
        return wire.dataset_to_proto(await self._database.read(lambda c: store.get_collection(c, name)))

    async def ListDatasets(
        self, request: datasets_pb2.ListDatasetsRequest, context: Context
    ) -> datasets_pb2.ListDatasetsResponse:
        """Lists a project's data sets."""
        project = ProjectName.parse(request.parent).project
        page = _page(request)
        rows = await self._database.read(lambda c: store.list_collections(c, DatasetName, project, page))
        entries, token = cut(rows, page, lambda row: row.collection_id)
        return datasets_pb2.ListDatasetsResponse(datasets=map(wire.dataset_to_proto, entries), next_page_token=token)

    async def CreateDatasetVersion(
        self, request: datasets_pb2.CreateDatasetVersionRequest, context: Context
    ) -> datasets_pb2.DatasetVersion:
        """Makes a version of a data set after reading every row."""
        name = DatasetName.parse(request.parent)
        manifest = wire.manifest_of_request(request.manifest)
        content = await datasets.examine(self._library, name, manifest)
        actor, time_us = current().actor, now_us()

        def add(connection: Connection) -> datasets_pb2.DatasetVersion:
            version = store.add_dataset_version(connection, name, content, creator=actor, time_us=time_us)
            return wire.dataset_version_to_proto(version)

        return await self._change(request, name.project, datasets_pb2.DatasetVersion, add)

    async def GetDatasetVersion(
        self, request: datasets_pb2.GetDatasetVersionRequest, context: Context
    ) -> datasets_pb2.DatasetVersion:
        """Returns a version of a data set."""
        name = DatasetVersionName.parse(request.name, allow_latest=True)
        return wire.dataset_version_to_proto(await self._database.read(lambda c: store.get_dataset_version(c, name)))

    async def ListDatasetVersions(
        self, request: datasets_pb2.ListDatasetVersionsRequest, context: Context
    ) -> datasets_pb2.ListDatasetVersionsResponse:
        """Lists the versions of a data set."""
        name = DatasetName.parse(request.parent)
        page = _page(request)
        rows = await self._database.read(lambda c: store.list_dataset_versions(c, name, page))
        versions = [wire.dataset_version_to_proto(row) for row in rows]
        entries, token = cut(versions, page, _version_number, size_bytes=_size_bytes)
        return datasets_pb2.ListDatasetVersionsResponse(versions=entries, next_page_token=token)

    # --- models -------------------------------------------------------------------------------------------------------
    async def CreateModel(self, request: models_pb2.CreateModelRequest, context: Context) -> models_pb2.Model:
        """Creates a model."""
        project = ProjectName.parse(request.parent).project
        requests.check_new_collection("model", request.model_id, request.model.description)
        model = _new(ModelName(project, request.model_id), request.model.description)
        return await self._change(
            request,
            project,
            models_pb2.Model,
            lambda connection: wire.model_to_proto(store.create_collection(connection, model)),
        )

    async def GetModel(self, request: models_pb2.GetModelRequest, context: Context) -> models_pb2.Model:
        """Returns a model."""
        name = ModelName.parse(request.name)
        return wire.model_to_proto(await self._database.read(lambda c: store.get_collection(c, name)))

    async def ListModels(
        self, request: models_pb2.ListModelsRequest, context: Context
    ) -> models_pb2.ListModelsResponse:
        """Lists a project's models."""
        project = ProjectName.parse(request.parent).project
        page = _page(request)
        rows = await self._database.read(lambda c: store.list_collections(c, ModelName, project, page))
        entries, token = cut(rows, page, lambda row: row.collection_id)
        return models_pb2.ListModelsResponse(models=map(wire.model_to_proto, entries), next_page_token=token)

    async def CreateModelVersion(
        self, request: models_pb2.CreateModelVersionRequest, context: Context
    ) -> models_pb2.ModelVersion:
        """Imports a version of a model."""
        name = ModelName.parse(request.parent)
        manifest = wire.manifest_of_request(request.manifest)
        found = await models.find_import(self._library, name, manifest)
        content = found.content if found else await self._import(name, manifest)
        actor, time_us = current().actor, now_us()

        def add(connection: Connection) -> models_pb2.ModelVersion:
            version = store.import_model_version(connection, name, content, creator=actor, time_us=time_us)
            return wire.model_version_to_proto(version)

        return await self._change(request, name.project, models_pb2.ModelVersion, add)

    async def _import(self, name: ModelName, manifest: Manifest) -> ModelContent:
        return wire.imported_content(manifest, await models.examine_import(self._library, name, manifest))

    async def PublishVersion(
        self, request: models_pb2.PublishVersionRequest, context: Context
    ) -> models_pb2.ModelVersion:
        """Makes the version that a job produced, once."""
        publication = wire.publication_of_request(request)
        version = await models.find_publication(self._library, publication)
        if version is None:
            for project in publication.projects():  # what the lineage names may be of another project than the result
                require_project(project)
            architecture, base = await models.examine_publication(self._library, publication)
            content = wire.published_content(publication, request, architecture, base)
            version = await self._publish(publication.model, content)
        return wire.model_version_to_proto(version)

    async def _publish(self, model: ModelName, content: ModelContent) -> ModelVersion:
        actor, time_us = current().actor, now_us()
        version = await self._database.write(
            lambda c: store.publish_model_version(c, model, content, creator=actor, time_us=time_us)
        )
        # Two calls of one job may have come here at once; the later one finds what the first one made.
        return models.same_publication(version, model, content.digest)

    async def GetModelVersion(
        self, request: models_pb2.GetModelVersionRequest, context: Context
    ) -> models_pb2.ModelVersion:
        """Returns a version of a model, by version or by alias."""
        name = parse_model_reference(request.name)

        def get(connection: Connection) -> ModelVersion:
            if isinstance(name, AliasName):
                alias = alias_store.get_alias(connection, name)
                return store.get_model_version(connection, name.parent.version(alias.version))
            return store.get_model_version(connection, name)

        return wire.model_version_to_proto(await self._database.read(get))

    async def ListModelVersions(
        self, request: models_pb2.ListModelVersionsRequest, context: Context
    ) -> models_pb2.ListModelVersionsResponse:
        """Lists the versions of a model."""
        name = ModelName.parse(request.parent)
        page = _page(request)
        rows = await self._database.read(lambda c: store.list_model_versions(c, name, page))
        versions = [wire.model_version_to_proto(row) for row in rows]
        entries, token = cut(versions, page, _version_number, size_bytes=_size_bytes)
        return models_pb2.ListModelVersionsResponse(versions=entries, next_page_token=token)

    # --- aliases ------------------------------------------------------------------------------------------------------
    async def GetAlias(self, request: aliases_pb2.GetAliasRequest, context: Context) -> aliases_pb2.Alias:
        """Returns an alias."""
        name = AliasName.parse(request.name)
        return wire.alias_to_proto(await self._database.read(lambda c: alias_store.get_alias(c, name)))

    async def ListAliases(
        self, request: aliases_pb2.ListAliasesRequest, context: Context
    ) -> aliases_pb2.ListAliasesResponse:
        """Lists the aliases of a model."""
        name = ModelName.parse(request.parent)
        page = _page(request)
        rows = await self._database.read(lambda c: alias_store.list_aliases(c, name, page))
        entries, token = cut(rows, page, lambda row: row.name.alias)
        return aliases_pb2.ListAliasesResponse(aliases=map(wire.alias_to_proto, entries), next_page_token=token)

    async def SetAlias(self, request: aliases_pb2.SetAliasRequest, context: Context) -> aliases_pb2.Alias:
        """Moves an alias and logs the move."""
        name, version = requests.alias_and_version(request.name, request.version, request.reason)
        move = AliasMove(
            name=name,
            version=version,
            etag=request.etag,
            reason=request.reason,
            actor=current().actor,
            time_us=now_us(),
        )
        return await self._change(
            request,
            name.project,
            aliases_pb2.Alias,
            lambda connection: wire.alias_to_proto(alias_store.set_alias(connection, move)),
        )

    async def ListAliasChanges(
        self, request: aliases_pb2.ListAliasChangesRequest, context: Context
    ) -> aliases_pb2.ListAliasChangesResponse:
        """Lists the moves of an alias."""
        name = AliasName.parse(request.parent)
        page = _page(request)
        rows = await self._database.read(lambda c: alias_store.list_alias_changes(c, name, page))
        entries, token = cut(rows, page, lambda row: str(row.sequence))
        changes = (wire.alias_change_to_proto(name, change) for change in entries)
        return aliases_pb2.ListAliasChangesResponse(changes=changes, next_page_token=token)

    # --- blobs --------------------------------------------------------------------------------------------------------
    async def GetBlobAccess(self, request: blobs_pb2.GetBlobAccessRequest, context: Context) -> blobs_pb2.BlobAccess:
        """Tells how to move the bytes of one blob."""
        name = BlobName.parse(request.name)
        is_write = request.direction == blobs_pb2.BLOB_DIRECTION_WRITE
        if not is_write and request.direction != blobs_pb2.BLOB_DIRECTION_READ:
            raise invalid_fields([FieldViolation("direction", f"is {request.direction}; give READ or WRITE")])
        if is_write:
            requests.check_blob_size(request.size_bytes)
        stored = await transfers.stored_size(self._library, name)
        if stored is None and not is_write:
            raise not_found("blob", name)
        stream = blobs_pb2.BlobStream(chunk_bytes=CHUNK_BYTES)
        if is_write:
            stream.upload = str(UploadName(name.project, name.digest))
            stream.committed_bytes = (
                await self._library.transfer(self._library.blobs.committed_bytes, name.project, name.digest)
                if stored is None
                else stored
            )
        size_bytes = request.size_bytes if stored is None else stored
        return blobs_pb2.BlobAccess(
            name=request.name, size_bytes=size_bytes, stream=stream, is_stored=stored is not None
        )

    async def UploadBlob(
        self, request_iterator: AsyncIterator[blobs_pb2.UploadBlobRequest], context: Context
    ) -> blobs_pb2.UploadBlobResponse:
        """Takes the bytes of a blob."""
        messages = aiter(request_iterator)
        first = await anext(messages, blobs_pb2.UploadBlobRequest())
        name = requests.upload_of(first.upload, first.size_bytes, first.offset)
        require_project(name.project)
        committed_bytes, is_stored = await transfers.receive(
            self._library, name, first.size_bytes, first.offset, _chunks(first, messages)
        )
        return blobs_pb2.UploadBlobResponse(
            name=str(BlobName(name.project, name.digest)), committed_bytes=committed_bytes, is_stored=is_stored
        )

    async def DownloadBlob(
        self, request: blobs_pb2.DownloadBlobRequest, context: Context
    ) -> AsyncIterator[blobs_pb2.DownloadBlobResponse]:
        """Sends the bytes of a blob."""
        async with aclosing(transfers.send(self._library, BlobName.parse(request.name), request.offset)) as chunks:
            async for data in chunks:
                yield blobs_pb2.DownloadBlobResponse(data=data)


async def _chunks(
    first: blobs_pb2.UploadBlobRequest, rest: AsyncIterator[blobs_pb2.UploadBlobRequest]
) -> AsyncIterator[bytes]:
    requests.check_chunk(first.data)
    yield first.data
    async for message in rest:
        requests.check_chunk(message.data)
        yield message.data


def _new(name: DatasetName | ModelName, description: str) -> Collection:
    return Collection(name=name, description=description, create_time_us=now_us(), creator=current().actor)


def _version_number(version: datasets_pb2.DatasetVersion | models_pb2.ModelVersion) -> str:
    return version.name.rpartition("/")[2]


def _size_bytes(message: Message) -> int:
    return message.ByteSize()


def _page(request: Any) -> Page:
    return page_of(request.page_size, request.page_token, scope=f"{request.DESCRIPTOR.name} {request.parent}")
