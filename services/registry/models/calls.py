"""The methods of models and their versions."""
# ruff: noqa: ARG002 - gRPC gives every method a context; who calls is in services.grpckit.context instead

from dataclasses import replace
from typing import Any, cast

from sqlalchemy import Connection

from services.grpckit.context import current, require_project
from services.grpckit.pages import cut, page_of
from services.registry import collections, requests
from services.registry.calls import Calls, Context, new_collection
from services.registry.library import Library, now_us
from services.registry.lineage.marks import mark_all, marked
from services.registry.lineage.sealing import seal_model_version
from services.registry.models import examination, filters, listing, references, store, wire
from services.registry.models.examination import AdapterBase, Reference
from services.registry.models.fact_store import OWN, add_facts
from services.registry.models.facts import described
from services.registry.models.listing import Wanted
from services.registry.models.messages import VersionMessages
from services.registry.models.resources import ModelContent, ModelVersion
from services.registry.wire import manifest_of_request
from tuneforge.names import ModelName, ProjectName, parse_model_reference, project_of
from tuneforge.v1 import models_pb2


class ModelCalls(Calls):
    """The methods of models and their versions."""

    def __init__(self, library: Library) -> None:
        super().__init__(library)
        self._messages = VersionMessages()

    async def CreateModel(self, request: models_pb2.CreateModelRequest, context: Context) -> models_pb2.Model:
        """Creates a model."""
        project = ProjectName.parse(request.parent).project
        requests.check_new_collection("model", request.model_id, request.model.description)
        model = new_collection(ModelName(project, request.model_id), request.model.description)
        wanted = replace(described(request.model, "model."), revision=1, update_time_us=model.create_time_us)

        def create(connection: Connection) -> models_pb2.Model:
            name = ModelName(project, request.model_id)
            collections.create_collection(connection, model)
            add_facts(connection, name, OWN, wanted, time_us=model.create_time_us)
            return wire.model_to_proto(listing.get_listed_model(connection, name))

        return await self._change(request, project, models_pb2.Model, create)

    async def GetModel(self, request: models_pb2.GetModelRequest, context: Context) -> models_pb2.Model:
        """Returns a model."""
        name = ModelName.parse(request.name)
        return wire.model_to_proto(await self._database.read(lambda c: listing.get_listed_model(c, name)))

    async def ListModels(
        self, request: models_pb2.ListModelsRequest, context: Context
    ) -> models_pb2.ListModelsResponse:
        """Lists a project's models."""
        project = ProjectName.parse(request.parent).project
        wanted = _wanted(request, "name")
        rows = await self._database.read(lambda c: listing.list_models(c, project, wanted))
        entries, token = cut(rows, wanted.page, lambda row: row.place)
        return models_pb2.ListModelsResponse(models=map(wire.model_to_proto, entries), next_page_token=token)

    async def CreateModelVersion(
        self, request: models_pb2.CreateModelVersionRequest, context: Context
    ) -> models_pb2.ModelVersion:
        """Imports a version of a model."""
        name = ModelName.parse(request.parent)
        manifest = manifest_of_request(request.manifest)
        wanted = described(request.version, "version.")
        reference = wire.reference_of(request.base)
        base = await self._base(reference) if reference.version else None
        found = await examination.find_import(self._library, name, manifest, base)
        if found:
            content = found.content
        else:
            architecture = await examination.examine_import(self._library, name, manifest, base)
            content = wire.imported_content(manifest, architecture, base, wanted)
        actor, sees, time_us = current().actor, current().principal.may_touch, now_us()

        def add(connection: Connection) -> models_pb2.ModelVersion:
            version = store.import_model_version(connection, name, content, creator=actor, time_us=time_us)
            seal_model_version(connection, self._library.signer, version)
            return marked(connection, wire.model_version_to_proto(version), sees)

        return await self._change(request, name.project, models_pb2.ModelVersion, add)

    async def _base(self, reference: Reference) -> AdapterBase:
        require_project(project_of(reference.version))  # a base may be of another project than the adapter
        return await examination.find_base(self._library, reference)

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
        sees = current().principal.may_touch
        return await self._database.read(lambda connection: marked(connection, message, sees))

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
        sees = current().principal.may_touch

        def get(connection: Connection) -> models_pb2.ModelVersion:
            version = references.resolve(connection, name)
            return marked(connection, wire.model_version_to_proto(version), sees)

        return cast("models_pb2.ModelVersion", await self._read(request, get))

    async def ListModelVersions(
        self, request: models_pb2.ListModelVersionsRequest, context: Context
    ) -> models_pb2.ListModelVersionsResponse:
        """Lists the versions of a model."""
        name = ModelName.parse(request.parent)
        wanted = _wanted(request, "date desc")
        sees = current().principal.may_touch

        def read(connection: Connection) -> models_pb2.ListModelVersionsResponse:
            found = listing.list_versions(connection, name, wanted)
            contents = self._messages.of(connection, name, found)
            versions = mark_all(connection, list(map(models_pb2.ModelVersion.FromString, contents)), sees)
            rows = list(zip(versions, found, strict=False))  # the end may be more than a page can carry
            entries, token = cut(rows, wanted.page, lambda row: row[1].place, size_bytes=lambda row: row[0].ByteSize())
            return models_pb2.ListModelVersionsResponse(versions=[row for row, _ in entries], next_page_token=token)

        return cast("models_pb2.ListModelVersionsResponse", await self._read(request, read))


def _wanted(request: Any, order: str) -> Wanted:
    """Reads filter, order and page of a list request."""
    filters.check_filter(request.filter)
    chosen = filters.order_of(request.order_by, order)
    words = [request.DESCRIPTOR.name, request.parent]
    if request.HasField("filter") or request.order_by:  # a token is of one filter and one order
        words += [request.filter.SerializeToString(deterministic=True).hex(), request.order_by]
    page = page_of(request.page_size, request.page_token, scope=" ".join(words))
    return Wanted(filter=request.filter, order=chosen, page=page)
