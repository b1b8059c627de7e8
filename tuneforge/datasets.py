"""Data sets: named rows that grow by immutable versions."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tuneforge import _short_names as names
from tuneforge import _wire
from tuneforge._connections import Connections
from tuneforge._transport import new_request_id
from tuneforge.blobs import BlobClient, Progress
from tuneforge.errors import AlreadyExists, FieldViolation, InvalidArgument, NotFound, Reason
from tuneforge.imports import ImportCall, ImportOptions, OnImportProgress
from tuneforge.manifest import Manifest
from tuneforge.v1 import datasets_pb2 as pb
from tuneforge.values import Word

if TYPE_CHECKING:
    from tuneforge.linting import Findings, LengthPolicy, LintOptions, RowPreview
    from tuneforge.linting import Progress as LintProgress

_CHECK_DEADLINE_S = 600.0
"""The registry reads every row before it makes a version: about a minute a gigabyte."""
_PROBLEMS_SHOWN = 20


class RowShape(Word):
    """What the rows of a data set look like."""

    UNKNOWN = "UNKNOWN"
    MESSAGES = "MESSAGES"
    """`{"messages": [{"role": ..., "content": ...}, ...]}`."""
    PROMPT_COMPLETION = "PROMPT_COMPLETION"
    """`{"prompt": ..., "completion": ...}`."""
    INSTRUCTION = "INSTRUCTION"
    """`{"instruction": ..., "input": ..., "output": ...}`, `input` optional."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A named set of rows that grows by versions."""

    name: str
    """`projects/{project}/datasets/{dataset}`."""
    description: str
    latest_version: str | None
    """Name of its newest version; None when there is none."""
    create_time: datetime
    creator: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetVersion:
    """One immutable state of a data set."""

    name: str
    """`projects/{project}/datasets/{dataset}/versions/{version}`."""
    manifest: Manifest
    """Its files and the digest over them."""
    shape: RowShape
    rows: int
    size_bytes: int
    create_time: datetime
    creator: str


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
        progress: Progress | None = None,
        on_start: Callable[[], None] | None = None,
    ) -> DatasetVersion:
        """Makes a version from one or more JSONL files; the same content gives the same version.

        The rows are checked here first when the extra `data` is installed, and by the registry in any case. An upload
        that broke off goes on where it stopped when it is asked for again.

        Args:
            path: The file, or files with different names.
            dataset: Id or name of the data set; it is created when missing.
            description: Of the data set, when it is created.
            progress: Told the number of bytes moved, piece by piece.
            on_start: Told before the first byte goes: the rows were checked here, and the registry answers.

        Raises:
            InvalidArgument: A file is missing or a row is malformed; `fields` lists the lines.
            TuneforgeError: The registry refused or stayed away.
        """
        paths = [Path(path)] if isinstance(path, str | os.PathLike) else [Path(each) for each in path]
        name = names.dataset(self._project, dataset)
        _check_files(paths)
        self._create_if_missing(name, description)
        blobs = self._blobs()
        if on_start is not None:
            on_start()
        manifest = Manifest.of(blobs.upload_file(file, progress=progress) for file in paths)
        request = pb.CreateDatasetVersionRequest(
            parent=name, manifest=_wire.manifest_to_proto(manifest), request_id=new_request_id()
        )
        registry = self._connections.registry
        return _version(registry.call(registry.stub.CreateDatasetVersion, request, timeout_s=_CHECK_DEADLINE_S))

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
            dataset: Id or name of the data set; it is created when missing.
            description: Of the data set, when it is created.
            options: Which files and split are taken, and with which of the operator's connections.
            progress: Told how far it is.

        Raises:
            InvalidArgument: The address is not allowed, or a row is malformed; `fields` lists the lines.
            TuneforgeError: The registry or the place refused or stayed away.
        """
        name = names.dataset(self._project, dataset)
        self._create_if_missing(name, description)
        asked = ImportCall(
            registry=self._connections.registry,
            parent=name,
            uri=uri,
            options=options or ImportOptions(),
            progress=progress,
        )
        return _version(asked.dataset_version())

    def create(self, dataset: str, *, description: str = "") -> Dataset:
        """Creates a data set without versions.

        Raises:
            AlreadyExists: There is one with this id.
        """
        parent, _, dataset_id = names.dataset(self._project, dataset).partition("/datasets/")
        request = pb.CreateDatasetRequest(
            parent=parent,
            dataset_id=dataset_id,
            dataset=pb.Dataset(description=description),
            request_id=new_request_id(),
        )
        registry = self._connections.registry
        return _dataset(registry.call(registry.stub.CreateDataset, request))

    def get(self, dataset: str) -> Dataset:
        """Returns a data set by id or name."""
        registry = self._connections.registry
        request = pb.GetDatasetRequest(name=names.dataset(self._project, dataset))
        return _dataset(registry.call(registry.stub.GetDataset, request))

    def list(self) -> Iterator[Dataset]:
        """Yields the project's data sets by id."""
        registry = self._connections.registry
        request = pb.ListDatasetsRequest(parent=names.parent(self._project))
        for page in registry.pages(registry.stub.ListDatasets, request):
            yield from map(_dataset, page.datasets)

    def version(self, version: str) -> DatasetVersion:
        """Returns a version: `id/3`, a whole name, or `id` for the newest one."""
        registry = self._connections.registry
        request = pb.GetDatasetVersionRequest(name=names.dataset_version(self._project, version))
        try:
            return _version(registry.call(registry.stub.GetDatasetVersion, request))
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
            yield from map(_version, page.versions)

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
        self, version: str, row: int | str, *, model: str, length: "LengthPolicy | None" = None
    ) -> "RowPreview":
        """Has the registry draw one row of a version token by token: what is learned, what is read, what is cut.

        Args:
            version: `id/3`, a whole name, or `id` for the newest one.
            row: Its number among all rows, from 1, or the beginning of its id.
            model: Model version (`id/3`, `id@alias`) whose tokenizer and chat template are used.
            length: How long rows may be; None for the usual.

        Raises:
            InvalidArgument: The row cannot be read or written.
            NotFound: There is no such version or row.
        """
        from tuneforge.linting import LENGTH, preview_row

        return preview_row(self._connections, self._project, version, row, model=model, length=length or LENGTH)

    def _create_if_missing(self, name: str, description: str) -> None:
        try:
            self.get(name)
        except NotFound:
            try:
                self.create(name, description=description)
            except AlreadyExists:  # somebody was quicker: as good
                return


def _check_files(paths: Sequence[Path]) -> None:
    """Raises for files that cannot be read, share a name, or have malformed rows."""
    for path in paths:
        if not path.is_file():
            message = f"{str(path)!r} is not a file"
            raise InvalidArgument(Reason.INVALID_FIELD, message, cure="Give a JSONL file, one row a line.")
    if len({path.name for path in paths}) != len(paths):
        message = "two of the files have the same name, which the version keeps"
        raise InvalidArgument(Reason.INVALID_FIELD, message, cure="Rename one of them.")
    try:
        from tuneforge.data.rows import check_file
    except ImportError:  # the extra `data` is not installed: the registry alone checks
        return
    violations = []
    total = 0
    for path in paths:
        report = check_file(path, limit=_PROBLEMS_SHOWN)
        if not report.rows and any(not problem.line for problem in report.problems):
            raise InvalidArgument(
                Reason.INVALID_DATA,
                f"{str(path)!r} is empty: write one JSON object a line",
                cure="Nothing was uploaded.",
            )
        total += report.num_problems
        violations += [
            FieldViolation(
                f"{path.name}:{problem.line} {problem.field}".rstrip(),
                f"{problem.message.replace('starting at at', 'starting at')} {problem.cure}",
            )
            for problem in report.problems
        ]
    if violations:
        files = str(paths[0]) if len(paths) == 1 else f"{len(paths)} files"
        raise InvalidArgument(
            Reason.INVALID_DATA,
            f"{total} of the rows in {files} {'is' if total == 1 else 'are'} malformed",
            cure="Correct the lines that are listed; nothing was uploaded.",
            fields=tuple(violations[:_PROBLEMS_SHOWN]),
        )


def _dataset(message: pb.Dataset) -> Dataset:
    return Dataset(
        name=message.name,
        description=message.description,
        latest_version=message.latest_version or None,
        create_time=_wire.instant(message.create_time),
        creator=message.creator,
    )


def _version(message: pb.DatasetVersion) -> DatasetVersion:
    return DatasetVersion(
        name=message.name,
        manifest=_wire.manifest(message.manifest),
        shape=_wire.word(RowShape, pb.RowShape.DESCRIPTOR, message.shape),
        rows=message.rows,
        size_bytes=message.size_bytes,
        create_time=_wire.instant(message.create_time),
        creator=message.creator,
    )
