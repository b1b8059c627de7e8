"""The methods of models and their versions."""
# ruff: noqa: ARG002 - gRPC gives every method a context; who calls is in services.grpckit.context instead

from collections.abc import Sequence

from sqlalchemy import Connection

from services.grpckit.context import current, require_project
from services.grpckit.pages import cut
from services.registry import collections, requests
from services.registry.aliases import store as alias_store
from services.registry.calls import Calls, Context, new_collection, page_of_request, size_bytes, version_number
from services.registry.library import now_us
from services.registry.lineage.marks import mark_all, marked
from services.registry.lineage.sealing import seal_model_version
from services.registry.models import examination, store, wire
from services.registry.models.resources import ModelContent, ModelVersion
from services.registry.wire import manifest_of_request
from tuneforge.manifest import Manifest
from tuneforge.names import AliasName, ModelName, ProjectName, parse_model_reference
from tuneforge.v1 import models_pb2


class ModelCalls(Calls):
    """The methods of models and their versions."""

    async def CreateModel(self, request: models_pb2.CreateModelRequest, context: Context) -> models_pb2.Model:
        """Creates a model."""
        project = ProjectName.parse(request.parent).project
        requests.check_new_collection("model", request.model_id, request.model.description)
        model = new_collection(ModelName(project, request.model_id), request.model.description)
        return await self._change(
            request,
            project,
            models_pb2.Model,
            lambda connection: wire.model_to_proto(collections.create_collection(connection, model)),
        )

    async def GetModel(self, request: models_pb2.GetModelRequest, context: Context) -> models_pb2.Model:
        """Returns a model."""
        name = ModelName.parse(request.name)
        return wire.model_to_proto(await self._database.read(lambda c: collections.get_collection(c, name)))

    async def ListModels(
        self, request: models_pb2.ListModelsRequest, context: Context
    ) -> models_pb2.ListModelsResponse:
        """Lists a project's models."""
        project = ProjectName.parse(request.parent).project
        page = page_of_request(request)
        rows = await self._database.read(lambda c: collections.list_collections(c, ModelName, project, page))
        entries, token = cut(rows, page, lambda row: row.collection_id)
        return models_pb2.ListModelsResponse(models=map(wire.model_to_proto, entries), next_page_token=token)

    async def CreateModelVersion(
        self, request: models_pb2.CreateModelVersionRequest, context: Context
    ) -> models_pb2.ModelVersion:
        """Imports a version of a model."""
        name = ModelName.parse(request.parent)
        manifest = manifest_of_request(request.manifest)
        found = await examination.find_import(self._library, name, manifest)
        content = found.content if found else await self._import(name, manifest)
        actor, time_us = current().actor, now_us()

        def add(connection: Connection) -> models_pb2.ModelVersion:
            version = store.import_model_version(connection, name, content, creator=actor, time_us=time_us)
            seal_model_version(connection, self._library.signer, version)
            return marked(connection, wire.model_version_to_proto(version))

        return await self._change(request, name.project, models_pb2.ModelVersion, add)

    async def _import(self, name: ModelName, manifest: Manifest) -> ModelContent:
        return wire.imported_content(manifest, await examination.examine_import(self._library, name, manifest))

    async def PublishVersion(
        self, request: models_pb2.PublishVersionRequest, context: Context
    ) -> models_pb2.ModelVersion:
        """Makes the version that a job produced, once."""
        publication = wire.publication_of_request(request)
        version = await examination.find_publication(self._library, publication)
        if version is None:
            for project in publication.projects():  # what the lineage names may be of another project than the result
                require_project(project)
            architecture, base = await examination.examine_publication(self._library, publication)
            content = wire.published_content(publication, request, architecture, base)
            version = await self._publish(publication.model, content)
        message = wire.model_version_to_proto(version)
        return await self._database.read(lambda connection: marked(connection, message))

    async def _publish(self, model: ModelName, content: ModelContent) -> ModelVersion:
        actor, time_us = current().actor, now_us()

        def add(connection: Connection) -> ModelVersion:
            version = store.publish_model_version(connection, model, content, creator=actor, time_us=time_us)
            return seal_model_version(connection, self._library.signer, version)

        version = await self._database.write(add)
        # Two calls of one job may have come here at once; the later one finds what the first one made.
        return examination.same_publication(version, model, content.digest)

    async def GetModelVersion(
        self, request: models_pb2.GetModelVersionRequest, context: Context
    ) -> models_pb2.ModelVersion:
        """Returns a version of a model, by version or by alias."""
        name = parse_model_reference(request.name)

        def get(connection: Connection) -> models_pb2.ModelVersion:
            wanted = name
            if isinstance(wanted, AliasName):
                wanted = wanted.parent.version(alias_store.get_alias(connection, wanted).version)
            version = store.get_model_version(connection, wanted)
            return marked(connection, wire.model_version_to_proto(version))

        return await self._database.read(get)

    async def ListModelVersions(
        self, request: models_pb2.ListModelVersionsRequest, context: Context
    ) -> models_pb2.ListModelVersionsResponse:
        """Lists the versions of a model."""
        name = ModelName.parse(request.parent)
        page = page_of_request(request)

        def read(connection: Connection) -> Sequence[models_pb2.ModelVersion]:
            rows = store.list_model_versions(connection, name, page)
            return mark_all(connection, [wire.model_version_to_proto(row) for row in rows])

        versions = await self._database.read(read)
        entries, token = cut(versions, page, version_number, size_bytes=size_bytes)
        return models_pb2.ListModelVersionsResponse(versions=entries, next_page_token=token)
