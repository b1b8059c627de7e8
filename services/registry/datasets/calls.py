"""The methods of data sets and their versions."""
# ruff: noqa: ARG002 - gRPC gives every method a context; who calls is in services.grpckit.context instead

from collections.abc import Sequence
from typing import cast

from sqlalchemy import Connection

from services.grpckit.context import current
from services.grpckit.pages import cut, page_of
from services.registry import collections, requests
from services.registry.calls import Calls, Context, new_collection, page_of_request, size_bytes, version_number
from services.registry.datasets import descriptions, examination, store, wire
from services.registry.datasets.rows import list_rows, page_of_rows
from services.registry.library import now_us
from services.registry.lineage.marks import mark_all, marked
from services.registry.lineage.sealing import seal_dataset_version
from services.registry.wire import manifest_of_request
from tuneforge.names import DatasetName, DatasetVersionName, ProjectName
from tuneforge.v1 import datasets_pb2, rows_pb2


class DatasetCalls(Calls):
    """The methods of data sets and their versions."""

    async def CreateDataset(self, request: datasets_pb2.CreateDatasetRequest, context: Context) -> datasets_pb2.Dataset:
        """Creates a data set."""
        project = ProjectName.parse(request.parent).project
        requests.check_new_collection("dataset", request.dataset_id, request.dataset.description)
        descriptions.check_description(request.dataset)
        name = DatasetName(project, request.dataset_id)
        dataset = new_collection(name, request.dataset.description)

        def create(connection: Connection) -> datasets_pb2.Dataset:
            collections.create_collection(connection, dataset)
            return wire.dataset_to_proto(descriptions.set_description(connection, name, request.dataset))

        return await self._change(request, project, datasets_pb2.Dataset, create)

    async def GetDataset(self, request: datasets_pb2.GetDatasetRequest, context: Context) -> datasets_pb2.Dataset:
        """Returns a data set."""
        name = DatasetName.parse(request.name)
        return wire.dataset_to_proto(await self._database.read(lambda c: descriptions.get_dataset(c, name)))

    async def UpdateDataset(self, request: datasets_pb2.UpdateDatasetRequest, context: Context) -> datasets_pb2.Dataset:
        """Changes what may change of a data set."""
        name = DatasetName.parse(request.dataset.name)
        paths = list(request.update_mask.paths)
        descriptions.check_mask(paths)
        descriptions.check_description(request.dataset)
        time_us = now_us()

        def change(connection: Connection) -> datasets_pb2.Dataset:
            changed = descriptions.update_dataset(connection, name, request.dataset, paths, time_us)
            return wire.dataset_to_proto(changed)

        return await self._change(request, name.project, datasets_pb2.Dataset, change)

    async def ListDatasets(
        self, request: datasets_pb2.ListDatasetsRequest, context: Context
    ) -> datasets_pb2.ListDatasetsResponse:
        """Lists a project's data sets."""
        project = ProjectName.parse(request.parent).project
        wanted = descriptions.filter_of(request.filter)
        scope = f"ListDatasets {request.parent} {wanted.tags} {wanted.shape} {wanted.query}"
        page = page_of(request.page_size, request.page_token, scope=scope)
        rows = await self._database.read(lambda c: descriptions.list_datasets(c, project, wanted, page))
        entries, token = cut(rows, page, lambda row: row.name.dataset)
        return datasets_pb2.ListDatasetsResponse(datasets=map(wire.dataset_to_proto, entries), next_page_token=token)

    async def CreateDatasetVersion(
        self, request: datasets_pb2.CreateDatasetVersionRequest, context: Context
    ) -> datasets_pb2.DatasetVersion:
        """Makes a version of a data set after reading every row."""
        name = DatasetName.parse(request.parent)
        manifest = manifest_of_request(request.manifest)
        split = examination.split_of(request.split)
        content = await examination.examine(self._library, name, manifest, split)
        actor, sees, time_us = current().actor, current().principal.may_touch, now_us()

        def add(connection: Connection) -> datasets_pb2.DatasetVersion:
            version = store.add_dataset_version(connection, name, content, creator=actor, time_us=time_us)
            seal_dataset_version(connection, self._library.signer, version)
            return marked(connection, wire.dataset_version_to_proto(version), sees)

        return await self._change(request, name.project, datasets_pb2.DatasetVersion, add)

    async def GetDatasetVersion(
        self, request: datasets_pb2.GetDatasetVersionRequest, context: Context
    ) -> datasets_pb2.DatasetVersion:
        """Returns a version of a data set."""
        name = DatasetVersionName.parse(request.name, allow_latest=True)
        sees = current().principal.may_touch

        def get(connection: Connection) -> datasets_pb2.DatasetVersion:
            version = store.get_dataset_version(connection, name)
            return marked(connection, wire.dataset_version_to_proto(version), sees)

        return cast("datasets_pb2.DatasetVersion", await self._read(request, get))

    async def ListDatasetVersions(
        self, request: datasets_pb2.ListDatasetVersionsRequest, context: Context
    ) -> datasets_pb2.ListDatasetVersionsResponse:
        """Lists the versions of a data set."""
        name = DatasetName.parse(request.parent)
        page, sees = page_of_request(request), current().principal.may_touch

        def read(connection: Connection) -> Sequence[datasets_pb2.DatasetVersion]:
            rows = store.list_dataset_versions(connection, name, page)
            return mark_all(connection, [wire.dataset_version_to_proto(row, with_details=False) for row in rows], sees)

        versions = await self._database.read(read)
        entries, token = cut(versions, page, version_number, size_bytes=size_bytes)
        return datasets_pb2.ListDatasetVersionsResponse(versions=entries, next_page_token=token)

    async def ListDatasetRows(
        self, request: rows_pb2.ListDatasetRowsRequest, context: Context
    ) -> rows_pb2.ListDatasetRowsResponse:
        """Lists the rows of a version."""
        name = DatasetVersionName.parse(request.parent, allow_latest=True)
        page = page_of_rows(request)
        version = await self._database.read(lambda connection: store.get_dataset_version(connection, name))
        return await list_rows(self._library, version, request, page)
