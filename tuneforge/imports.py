"""Data sets and models that the registry fetches by their address, so that the bytes do not pass through the caller.

`client.datasets.import_from` and `client.models.import_from` come here. A package that is installed on this machine and
not at the registry is uploaded from here: `package_path` says where it lies.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from tuneforge import _wire
from tuneforge._connections import Service
from tuneforge._transport import Backoff, is_retriable, new_request_id, typed_error
from tuneforge.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, Reason, TuneforgeError
from tuneforge.v1 import datasets_pb2, models_pb2, sources_pb2, types_pb2
from tuneforge.v1.registry_pb2_grpc import RegistryServiceStub
from tuneforge.values import Word

_SCHEME = re.compile(r"(https|s3|hf|package)://", re.IGNORECASE)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?", re.ASCII)


class ImportPhase(Word):
    """What an import is doing."""

    UNKNOWN = "UNKNOWN"
    LISTING = "LISTING"
    """The place is asked what there is."""
    FETCHING = "FETCHING"
    """Bytes arrive."""
    EXAMINING = "EXAMINING"
    """All files are stored and are examined as those of an upload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportProgress:
    """How far an import is."""

    phase: ImportPhase
    file: str
    """The file that arrives; empty outside of FETCHING."""
    file_bytes: int
    file_size_bytes: int
    """0 where the place does not say."""
    files_done: int
    files: int
    bytes_done: int
    """Of all files, with those that an earlier try left at the registry."""
    size_bytes: int
    """Of all files; 0 where the place does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What is taken, and with whose credentials."""

    connection: str = ""
    """Name of the operator's connection with endpoint and credentials; of S3, `default` when empty."""
    include: tuple[str, ...] = ()
    """Patterns of the files to take, such as `data/*.parquet`; empty takes all that fit the kind."""
    source_split: str = ""
    """Of a data set: which split of the source to take; empty takes `train`, else the first one; `*` takes all."""
    source_config: str = ""
    """Of a data set: which configuration of its card to take, where that names several; empty takes the default."""
    validation_ratio: float = 0.0
    """Of a data set: share of the rows that is for validation, 0 (none) to 0.5; where its files do not divide it."""
    seed: int = 0
    """Of this split."""
    base: str = ""
    """Of an adapter: the version that it was trained on, `id/3`, `id@alias` or a whole name; empty for all else."""


OnImportProgress = Callable[[ImportProgress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportCall:
    """One import, as it is asked of the registry."""

    registry: Service[RegistryServiceStub]
    parent: str
    """Whole name of the data set or model."""
    uri: str
    options: ImportOptions = field(default_factory=ImportOptions)
    progress: OnImportProgress | None = None
    base: types_pb2.VersionRef | None = None
    """Of an adapter: its base, found by `options.base`."""

    def dataset_version(self) -> datasets_pb2.DatasetVersion:
        """Has a data set fetched and returns its version.

        Raises:
            TuneforgeError: The registry refused, or the place broke off for longer than the client's patience.
        """
        request = sources_pb2.ImportDatasetVersionRequest(
            parent=self.parent,
            location=self._location(),
            source_split=self.options.source_split,
            source_config=self.options.source_config,
            request_id=new_request_id(),
        )
        if self.options.validation_ratio:
            request.split.validation_ratio = self.options.validation_ratio
            request.split.seed = self.options.seed
        version: datasets_pb2.DatasetVersion = self._follow(self.registry.stub.ImportDatasetVersion, request)
        return version

    def model_version(self) -> models_pb2.ModelVersion:
        """Has a model fetched and returns its version; errors as for `dataset_version`."""
        request = sources_pb2.ImportModelVersionRequest(
            parent=self.parent, location=self._location(), request_id=new_request_id(), base=self.base
        )
        version: models_pb2.ModelVersion = self._follow(self.registry.stub.ImportModelVersion, request)
        return version

    def _location(self) -> sources_pb2.Location:
        return sources_pb2.Location(
            uri=self.uri, connection=self.options.connection, include=list(self.options.include)
        )

    def _follow(self, method: Callable[..., Iterator[Any]], request: Any) -> Any:
        """Follows the stream to the version; one that breaks is opened again, and the registry goes on."""
        backoff = Backoff(self.registry.retry)
        furthest = -1
        while True:
            try:
                for message in method(request):
                    if message.WhichOneof("step") == "version":
                        return message.version
                    progress = _progress(message.progress)
                    if progress.bytes_done > furthest:
                        furthest = progress.bytes_done
                        backoff.progress()
                    if self.progress is not None:
                        self.progress(progress)
                error = TuneforgeError(Reason.INTERNAL, f"{self.registry.peer} ended the import without a version")
            except grpc.RpcError as rpc_error:
                error = typed_error(rpc_error, self.registry.peer)
                if not is_retriable(rpc_error):
                    raise error from None
            backoff.wait_or_raise(error)


@contextlib.contextmanager
def unless_refused(made: bool, delete: Callable[[], object]) -> Iterator[None]:
    """Takes the data set or model back that was made for an import which is then refused; one that broke off goes on.

    Args:
        made: Whether it was made for the import.
        delete: Deletes it, unless it has a version.
    """
    try:
        yield
    except (InvalidArgument, FailedPrecondition, NotFound, PermissionDenied):
        if made:
            with contextlib.suppress(TuneforgeError):  # what is to be told is why the import was refused
                delete()
        raise


def is_address(text: str) -> bool:
    """Returns whether a text is an address, not a path: it has a scheme, or is an id of the hub and no path here."""
    if _SCHEME.match(text):
        return True
    return _HUB_ID.fullmatch(text) is not None and not Path(text).exists()


def package_path(uri: str) -> Path:
    """Returns where a file or folder of a distribution installed on this machine lies.

    Args:
        uri: `package://distribution/path`.

    Raises:
        InvalidArgument: It is no such address, the distribution is not installed here, or has no such path.
    """
    from importlib.metadata import PackageNotFoundError, distribution

    scheme, _, rest = uri.partition("://")
    name, _, path = rest.partition("/")
    if scheme.lower() != "package" or not name:
        message = f"{uri!r} is no address of a package"
        raise InvalidArgument(Reason.INVALID_FIELD, message, cure="Give package://distribution/path.")
    try:
        found = distribution(name)
    except PackageNotFoundError:
        message = f"the distribution {name!r} is not installed on this machine"
        raise InvalidArgument(Reason.INVALID_FIELD, message, cure=f"Install it: pip install {name}") from None
    path = path.strip("/")
    listed = [file.as_posix() for file in found.files or ()]
    if ".." in path.split("/") or not any(file == path or file.startswith(path + "/") for file in listed):
        places = sorted({file.partition("/")[0] for file in listed if "/" in file and ".dist-info" not in file})
        message = f"the distribution {name!r} has no {path!r}"
        raise InvalidArgument(Reason.INVALID_FIELD, message, cure=f"Its folders are {', '.join(places[:10])}.")
    return Path(str(found.locate_file(path)))


def _progress(message: sources_pb2.ImportProgress) -> ImportProgress:
    return ImportProgress(
        phase=_wire.word(ImportPhase, sources_pb2.ImportProgress.Phase.DESCRIPTOR, message.phase),
        file=message.file,
        file_bytes=message.file_bytes,
        file_size_bytes=message.file_size_bytes,
        files_done=message.files_done,
        files=message.files,
        bytes_done=message.bytes_done,
        size_bytes=message.bytes,
    )
