"""What data sets hold: read, examined and brought here, never changed. Making them is in `tuneforge.datasets`."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from tuneforge import _short_names as names
from tuneforge._connections import Connections
from tuneforge._downloads import bring, wanted_files
from tuneforge.blobs import BlobClient, Progress
from tuneforge.dataset_values import (
    Dataset,
    DatasetRow,
    DatasetVersion,
    RowShape,
    SplitSide,
    dataset_of,
    row_of,
    version_of,
)
from tuneforge.errors import NotFound
from tuneforge.v1 import datasets_pb2 as pb
from tuneforge.v1 import rows_pb2

if TYPE_CHECKING:
    from tuneforge.linting import Findings, LengthPolicy, LintOptions, RowPreview
    from tuneforge.linting import Progress as LintProgress


class DatasetLookup:
    """Reads the data sets of one project."""

    def __init__(self, connections: Connections, project: str, blobs: Callable[[], BlobClient]) -> None:
        self._connections = connections
        self._project = project
        self._blobs = blobs

    def get(self, dataset: str) -> Dataset:
        """Returns a data set by id or name."""
        registry = self._connections.registry
        request = pb.GetDatasetRequest(name=names.dataset(self._project, dataset))
        return dataset_of(registry.call(registry.stub.GetDataset, request))

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
