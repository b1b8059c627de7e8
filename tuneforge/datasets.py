"""Data sets: named rows that grow by immutable versions."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from google.protobuf.field_mask_pb2 import FieldMask

from tuneforge import _short_names as names
from tuneforge import _wire
from tuneforge._connections import Connections
from tuneforge._dataset_files import check_rows, files_of
from tuneforge._downloads import bring, wanted_files
from tuneforge._transport import new_request_id
from tuneforge.blobs import BlobClient, Progress
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
    row_of,
    version_of,
)
from tuneforge.errors import AlreadyExists, NotFound
from tuneforge.imports import ImportCall, ImportOptions, OnImportProgress, unless_refused
from tuneforge.v1 import datasets_pb2 as pb
from tuneforge.v1 import retention_pb2, rows_pb2

if TYPE_CHECKING:
    from tuneforge.linting import Findings, LengthPolicy, LintOptions, RowPreview
    from tuneforge.linting import Progress as LintProgress

_CHECK_DEADLINE_S = 3000.0
"""The registry reads every row before it makes a version: up to a minute a gigabyte. A call that is made again after
this finds the reading going on or done."""


class Datasets:
    """Data sets of one project; `client.datasets`."""

    def __init__(self, connections: Connections, project: str, blobs: Callable[[], BlobClient]) -> None:
        self._connections = connections
        self._project = project
        self._blobs = blobs

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

    def get(self, dataset: str) -> Dataset:
        """Returns a data set by id or name."""
        registry = self._connections.registry
        request = pb.GetDatasetRequest(name=names.dataset(self._project, dataset))
        return dataset_of(registry.call(registry.stub.GetDataset, request))

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

    def list(self, *, tags: Sequence[str] = (), shape: RowShape | None = None, query: str = "") -> Iterator[Dataset]:
        """Yields the project's data sets by id.

        Args:
            tags: Only those with all of these.
            shape: Only those whose newest version has this shape.
            query: Only those with this in their id or description, in any case.
        """
        registry = self._connections.registry
        wanted = pb.DatasetFilter(query=query, tags=tags)
        if shape is not None:
            wanted.shape = pb.RowShape.Value(f"ROW_SHAPE_{shape.value}")
        request = pb.ListDatasetsRequest(parent=names.parent(self._project), filter=wanted)
        for page in registry.pages(registry.stub.ListDatasets, request):
            yield from map(dataset_of, page.datasets)

    def version(self, version: str) -> DatasetVersion:
        """Returns a version: `id/3`, a whole name, or `id` for the newest one."""
        registry = self._connections.registry
        request = pb.GetDatasetVersionRequest(name=names.dataset_version(self._project, version))
        try:
            return version_of(registry.call(registry.stub.GetDatasetVersion, request))
        except NotFound:
            dataset, _, number = request.name.partition("/versions/")
            if number == "latest":
                self.get(dataset)  # who named no version is told of the data set that is not there
            raise

    def versions(self, dataset: str) -> Iterator[DatasetVersion]:
        """Yields the versions of a data set, newest first."""
        registry = self._connections.registry
        request = pb.ListDatasetVersionsRequest(parent=names.dataset(self._project, dataset))
        for page in registry.pages(registry.stub.ListDatasetVersions, request):
            yield from map(version_of, page.versions)

    def download(
        self,
        version: str,
        folder: str | os.PathLike[str],
        *,
        include: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> DatasetVersion:
        """Brings the files of a version into a folder, verified by digest; goes on where an earlier one broke off.

        With `include` only files that fit a pattern, e.g. `*.jsonl`. Others in the folder stay as they are. All files
        of a version, uploaded again, are that version.

        Raises:
            InvalidArgument: No file fits a pattern.
            IntegrityError: Bytes that arrived are not those of the manifest.
            TuneforgeError: There is no such version, or the registry stayed away.
        """
        found = self.version(version)
        bring(self._blobs(), wanted_files(found.manifest, include), folder, progress)
        return found

    def rows(self, version: str, *, side: SplitSide | None = None, row_id: str = "") -> Iterator[DatasetRow]:
        """Yields the rows of a version in the order of its files.

        Args:
            version: `id/3`, a whole name, or `id` for the newest one.
            side: Only rows of this side of its split.
            row_id: Only rows whose id begins with these 4 to 64 hexadecimal digits.
        """
        registry = self._connections.registry
        request = rows_pb2.ListDatasetRowsRequest(
            parent=names.dataset_version(self._project, version), row_id_prefix=row_id
        )
        if side is not None:
            request.side = rows_pb2.SplitSide.Value(f"SPLIT_SIDE_{side.value}")
        # Each page is read by a process of its own, from the first row on.
        for page in registry.pages(registry.stub.ListDatasetRows, request, later_size=1000):
            yield from map(row_of, page.rows)

    def lint(
        self,
        version: str,
        *,
        validation: str | None = None,
        model: str | None = None,
        options: "LintOptions | None" = None,
        on_progress: "Callable[[LintProgress], None] | None" = None,
    ) -> "Findings":
        """Has the registry look at every row of a version; what is wrong comes as it is found.

        Args:
            version: `id/3`, a whole name, or `id` for the newest one.
            validation: The version that is measured with, named alike.
            model: Model version (`id/3`, `id@alias`) whose tokenizer and chat template are used; None skips the checks
                that need them.
            options: What is looked for, see `tuneforge.linting.LintOptions`; None for everything.
            on_progress: Told how far it has come.
        """
        from tuneforge.linting import lint_version

        return lint_version(
            self._connections,
            self._project,
            version,
            validation=validation,
            model=model,
            options=options,
            on_progress=on_progress,
        )

    def preview(
        self,
        version: str,
        row: int | str,
        *,
        model: str,
        length: "LengthPolicy | None" = None,
        rejected: bool = False,
    ) -> "RowPreview":
        """Has the registry draw one row of a version token by token: what is learned, what is read, what is cut.

        Args:
            version: `id/3`, a whole name, or `id` for the newest one.
            row: Its number among all rows, from 1, or the beginning of its id.
            model: Model version (`id/3`, `id@alias`) whose tokenizer and chat template are used.
            length: How long rows may be; None for the usual.
            rejected: Of a row with a pair of answers, draw the rejected one, not the chosen one.

        Raises:
            InvalidArgument: The row cannot be read or written.
            NotFound: There is no such version or row.
        """
        from tuneforge.linting import LENGTH, preview_row

        return preview_row(
            self._connections,
            self._project,
            version,
            row,
            model=model,
            length=length or LENGTH,
            rejected=rejected,
        )

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
