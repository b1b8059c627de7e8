"""Data sets, named rows that grow by immutable versions: made and changed here, read in `tuneforge.dataset_lookup`."""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence

from google.protobuf.field_mask_pb2 import FieldMask

from tuneforge import _short_names as names
from tuneforge import _wire
from tuneforge._dataset_files import check_rows, files_of
from tuneforge._transport import new_request_id
from tuneforge.blobs import Progress
from tuneforge.dataset_lookup import DatasetLookup
from tuneforge.dataset_values import (
    DataFormat,
    Dataset,
    DatasetRemark,
    DatasetRow,
    DatasetSplit,
    DatasetStatistics,
    DatasetVersion,
    RowShape,
    Sizes,
    SplitSide,
    dataset_of,
    version_of,
)
from tuneforge.errors import AlreadyExists, NotFound
from tuneforge.imports import ImportCall, ImportOptions, OnImportProgress, unless_refused
from tuneforge.v1 import datasets_pb2 as pb
from tuneforge.v1 import retention_pb2

_CHECK_DEADLINE_S = 3000.0
"""The registry reads every row before it makes a version: up to a minute a gigabyte. A call that is made again after
this finds the reading going on or done."""


class Datasets(DatasetLookup):
    """Data sets of one project; `client.datasets`."""

    def upload(
        self,
        path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        dataset: str,
        *,
        description: str = "",
        validation_ratio: float = 0.0,
        seed: int = 0,
        config: str = "",
        progress: Progress | None = None,
        on_start: Callable[[], None] | None = None,
    ) -> DatasetVersion:
        """Makes a version from files or a folder; the same content and split give the same version.

        JSONL, JSON, CSV, Parquet, Arrow and text files are taken, also as `.gz` or `.zst`; folders of these, of images
        (the folder that an image lies in is its label), and of Hugging Face data sets. Names with `train`, `validation`
        or `test` in them divide the rows. The rows are checked here first, as far as the packages that their format
        needs are installed (extra `formats`), and by the registry in any case. An upload that broke off goes on where
        it stopped when it is asked for again.

        Args:
            path: The file, files with different names, or a folder.
            dataset: Id or name of the data set; it is created when missing.
            description: Of the data set, when it is created.
            validation_ratio: Share of the rows that is for validation, 0 (none) to 0.5. A row's side depends on its
                content and the seed alone.
            seed: Of this division.
            config: Of a folder whose card (`README.md`) names several configurations: which to take.
            progress: Told the number of bytes moved, piece by piece.
            on_start: Told before the first byte goes: the rows were checked here, and the registry answers.

        Raises:
            InvalidArgument: A file is missing or a row is malformed; `fields` lists the lines.
            TuneforgeError: The registry refused or stayed away.
        """
        files = files_of(path, config=config)
        name = names.dataset(self._project, dataset)
        check_rows(files, validation_ratio, seed)
        self._create_if_missing(name, description)
        blobs = self._blobs()
        if on_start is not None:
            on_start()
        manifest = blobs.upload_files(files, progress=progress)
        request = pb.CreateDatasetVersionRequest(
            parent=name, manifest=_wire.manifest_to_proto(manifest), request_id=new_request_id()
        )
        if validation_ratio:
            request.split.validation_ratio, request.split.seed = validation_ratio, seed
        registry = self._connections.registry
        return version_of(registry.call(registry.stub.CreateDatasetVersion, request, timeout_s=_CHECK_DEADLINE_S))

    def split(self, version: str, validation_ratio: float, *, seed: int = 0) -> DatasetVersion:
        """Makes a version of the same files that is divided otherwise; no byte is moved.

        Args:
            version: `id/3`, a whole name, or `id` for the newest one.
            validation_ratio: Share of the rows that is for validation, 0 (none) to 0.5.
            seed: Another one divides differently.

        Raises:
            InvalidArgument: The ratio is out of range, the files divide the rows themselves, or a side would be empty.
        """
        found = self.version(version)
        request = pb.CreateDatasetVersionRequest(
            parent=found.name.partition("/versions/")[0],
            manifest=_wire.manifest_to_proto(found.manifest),
            split=pb.DatasetSplit(validation_ratio=validation_ratio, seed=seed),
            request_id=new_request_id(),
        )
        registry = self._connections.registry
        return version_of(registry.call(registry.stub.CreateDatasetVersion, request, timeout_s=_CHECK_DEADLINE_S))

    def import_from(
        self,
        uri: str,
        dataset: str,
        *,
        description: str = "",
        options: ImportOptions | None = None,
        progress: OnImportProgress | None = None,
    ) -> DatasetVersion:
        """Has the registry fetch a data set and make a version of it; the same content gives the same version.

        An import that broke off goes on where it stopped when it is asked for again.

        Args:
            uri: `https://host/path`, `s3://bucket/prefix`, `hf://owner/name[@revision]`, `package://name/path`.
            dataset: Id or name of the data set; it is created when missing, and gone again when the import is refused.
            description: Of the data set, when it is created.
            options: Which files and split are taken, and with which of the operator's connections.
            progress: Told how far it is.

        Raises:
            InvalidArgument: The address is not allowed, or a row is malformed; `fields` lists the lines.
            TuneforgeError: The registry or the place refused or stayed away.
        """
        name = names.dataset(self._project, dataset)
        made = self._create_if_missing(name, description)
        asked = ImportCall(
            registry=self._connections.registry,
            parent=name,
            uri=uri,
            options=options or ImportOptions(),
            progress=progress,
        )
        with unless_refused(made, lambda: self._delete_empty(name)):
            return version_of(asked.dataset_version())

    def create(
        self,
        dataset: str,
        *,
        description: str = "",
        tags: Sequence[str] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> Dataset:
        """Creates a data set without versions.

        Args:
            dataset: Its id.
            description: What it is, for people.
            tags: Words to find it by.
            metadata: What people note of it.

        Raises:
            AlreadyExists: There is one with this id.
        """
        parent, _, dataset_id = names.dataset(self._project, dataset).partition("/datasets/")
        request = pb.CreateDatasetRequest(
            parent=parent,
            dataset_id=dataset_id,
            dataset=pb.Dataset(description=description, tags=tags, metadata=metadata or {}),
            request_id=new_request_id(),
        )
        registry = self._connections.registry
        return dataset_of(registry.call(registry.stub.CreateDataset, request))

    def update(
        self,
        dataset: str,
        *,
        description: str | None = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        etag: str = "",
    ) -> Dataset:
        """Changes what is given and leaves the rest.

        Args:
            dataset: Id or name.
            description: The new one.
            tags: All of the new ones.
            metadata: All of the new one.
            etag: Refuse when the data set has another one by now; empty: change it whatever it is.

        Raises:
            Conflict: Somebody changed it meanwhile.
        """
        message = pb.Dataset(name=names.dataset(self._project, dataset), etag=etag)
        given = {"description": description, "tags": tags, "metadata": metadata}
        if description is not None:
            message.description = description
        message.tags.extend(tags or ())
        message.metadata.update(metadata or {})
        mask = FieldMask(paths=[name for name, value in given.items() if value is not None])
        request = pb.UpdateDatasetRequest(dataset=message, update_mask=mask, request_id=new_request_id())
        registry = self._connections.registry
        return dataset_of(registry.call(registry.stub.UpdateDataset, request))

    def _create_if_missing(self, name: str, description: str) -> bool:
        """Returns whether it was missing."""
        try:
            self.get(name)
        except NotFound:
            with contextlib.suppress(AlreadyExists):  # somebody was quicker: as good
                self.create(name, description=description)
                return True
        return False

    def _delete_empty(self, name: str) -> None:
        registry = self._connections.registry
        request = retention_pb2.DeleteDatasetRequest(
            name=name, reason="the import was refused", request_id=new_request_id()
        )
        registry.call(registry.stub.DeleteDataset, request)


__all__ = [
    "DataFormat",
    "Dataset",
    "DatasetRemark",
    "DatasetRow",
    "DatasetSplit",
    "DatasetStatistics",
    "DatasetVersion",
    "Datasets",
    "RowShape",
    "Sizes",
    "SplitSide",
]
