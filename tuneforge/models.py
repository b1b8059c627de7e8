"""Models and their versions with lineage; the aliases that point to versions are in `tuneforge.aliases`."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from tuneforge import _short_names as names
from tuneforge import _wire
from tuneforge._connections import Connections
from tuneforge._transport import new_request_id
from tuneforge.blobs import BlobClient, Progress
from tuneforge.errors import AlreadyExists, InvalidArgument, NotFound, Reason
from tuneforge.imports import ImportCall, ImportOptions, OnImportProgress
from tuneforge.manifest import Manifest, ManifestFile, sha256_file
from tuneforge.specs.spec import Architecture, TrainingSpec
from tuneforge.specs.wire import architecture_from_proto, spec_from_proto
from tuneforge.v1 import events_pb2
from tuneforge.v1 import models_pb2 as pb
from tuneforge.values import ArtifactKind, VersionRef

_IMPORT_DEADLINE_S = 120.0
"""The registry reads the headers of all weight files before it makes a version."""

_MODEL_SUFFIXES = frozenset({".safetensors", ".json", ".txt", ".model", ".jinja"})
"""What an import takes from a folder: weights, configurations, tokenizers, chat templates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A named model that grows by versions."""

    name: str
    """`projects/{project}/models/{model}`."""
    description: str
    latest_version: str | None
    """Name of its newest version; None when there is none."""
    create_time: datetime
    creator: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """What a version was made from; all None for an import."""

    base: VersionRef | None
    """The version it started from."""
    dataset: VersionRef | None
    """The data set version it learned from."""
    validation: VersionRef | None
    """The data set version it was validated on."""
    job: str | None
    """The job that made it."""
    attempt: int
    """The attempt of that job, from 1; 0 for an import."""
    spec: TrainingSpec | None
    """The spec with every `auto` resolved."""
    environment: Mapping[str, str]
    """Versions and devices of the run, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """One immutable state of a model and all it was made from."""

    name: str
    """`projects/{project}/models/{model}/versions/{version}`."""
    manifest: Manifest
    """Its files and the digest over them."""
    kind: ArtifactKind
    architecture: Architecture
    """What is known of it without loading it; a list of versions leaves `tensors` out."""
    parameters: int
    """Number of weights; for an adapter, of its base."""
    lineage: Lineage
    metrics: Mapping[str, float]
    """Final figures of the run by name, e.g. `evaluation_loss`."""
    size_bytes: int
    create_time: datetime
    creator: str


class Models:
    """Models of one project; `client.models`. Versions are named `id/3`, `id@alias`, `id` (newest) or by whole name."""

    def __init__(self, connections: Connections, project: str, blobs: Callable[[], BlobClient]) -> None:
        self._connections = connections
        self._project = project
        self._blobs = blobs

    def import_folder(
        self,
        path: str | os.PathLike[str],
        model: str,
        *,
        description: str = "",
        progress: Progress | None = None,
    ) -> ModelVersion:
        """Makes a version from a Hugging Face model folder; the same content gives the same version.

        Args:
            path: Folder with `config.json`, `*.safetensors` and the tokenizer's files. Other files in it, such as
                pickled weights and code, are left where they are; links are followed (a hub's cache is made of them).
            model: Id or name of the model; it is created when missing.
            description: Of the model, when it is created.
            progress: Told the number of bytes moved, piece by piece.

        Raises:
            InvalidArgument: It is no such folder, or its architecture is not supported.
            TuneforgeError: The registry refused or stayed away.
        """
        folder = Path(path)
        _check_folder(folder)
        name = names.model(self._project, model)
        self._create_if_missing(name, description)
        files = {file.name: file for file in sorted(folder.iterdir()) if _belongs_to_model(file)}
        manifest = Manifest.of(
            ManifestFile(name, sha256_file(file), file.stat().st_size) for name, file in files.items()
        )
        self._blobs().upload_manifest(folder, manifest, progress=progress)
        request = pb.CreateModelVersionRequest(
            parent=name, manifest=_wire.manifest_to_proto(manifest), request_id=new_request_id()
        )
        registry = self._connections.registry
        return _version(registry.call(registry.stub.CreateModelVersion, request, timeout_s=_IMPORT_DEADLINE_S))

    def import_from(
        self,
        uri: str,
        model: str,
        *,
        description: str = "",
        options: ImportOptions | None = None,
        progress: OnImportProgress | None = None,
    ) -> ModelVersion:
        """Has the registry fetch a model and make a version of it; the same content gives the same version.

        An import that broke off goes on where it stopped when it is asked for again.

        Args:
            uri: `hf://owner/name[@revision]` or its id alone, `s3://bucket/prefix`, `package://name/path`.
            model: Id or name of the model; it is created when missing.
            description: Of the model, when it is created.
            options: Which files are taken, and with which of the operator's connections.
            progress: Told how far it is.

        Raises:
            InvalidArgument: The address is not allowed, or its files are no model that is supported.
            TuneforgeError: The registry or the place refused or stayed away.
        """
        name = names.model(self._project, model)
        self._create_if_missing(name, description)
        asked = ImportCall(
            registry=self._connections.registry,
            parent=name,
            uri=uri,
            options=options or ImportOptions(),
            progress=progress,
        )
        return _version(asked.model_version())

    def create(self, model: str, *, description: str = "") -> Model:
        """Creates a model without versions.

        Raises:
            AlreadyExists: There is one with this id.
        """
        parent, _, model_id = names.model(self._project, model).partition("/models/")
        request = pb.CreateModelRequest(
            parent=parent, model_id=model_id, model=pb.Model(description=description), request_id=new_request_id()
        )
        registry = self._connections.registry
        return _model(registry.call(registry.stub.CreateModel, request))

    def get(self, model: str) -> Model:
        """Returns a model by id or name."""
        registry = self._connections.registry
        return _model(registry.call(registry.stub.GetModel, pb.GetModelRequest(name=names.model(self._project, model))))

    def list(self) -> Iterator[Model]:
        """Yields the project's models by id."""
        registry = self._connections.registry
        request = pb.ListModelsRequest(parent=names.parent(self._project))
        for page in registry.pages(registry.stub.ListModels, request):
            yield from map(_model, page.models)

    def version(self, version: str) -> ModelVersion:
        """Returns a version: `id/3`, `id@alias`, a whole name, or `id` for the newest one."""
        registry = self._connections.registry
        request = pb.GetModelVersionRequest(name=names.model_version(self._project, version))
        return _version(registry.call(registry.stub.GetModelVersion, request))

    def versions(self, model: str) -> Iterator[ModelVersion]:
        """Yields the versions of a model, newest first; their architectures have no tensors."""
        registry = self._connections.registry
        request = pb.ListModelVersionsRequest(parent=names.model(self._project, model))
        for page in registry.pages(registry.stub.ListModelVersions, request):
            yield from map(_version, page.versions)

    def download(
        self, version: str, folder: str | os.PathLike[str], *, progress: Progress | None = None
    ) -> ModelVersion:
        """Brings the files of a version into a folder, verified by digest; goes on where an earlier one broke off.

        Files of other names in the folder stay as they are.

        Raises:
            IntegrityError: Bytes that arrived are not those of the manifest.
            TuneforgeError: There is no such version, or the registry stayed away.
        """
        found = self.version(version)
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        self._blobs().download_folder(found.manifest, target, progress=progress)
        return found

    def _create_if_missing(self, name: str, description: str) -> None:
        try:
            self.get(name)
        except NotFound:
            try:
                self.create(name, description=description)
            except AlreadyExists:  # somebody was quicker: as good
                return


def _belongs_to_model(file: Path) -> bool:
    return file.is_file() and file.suffix in _MODEL_SUFFIXES and not file.name.startswith(".")


def _check_folder(folder: Path) -> None:
    """Raises for a folder that cannot be a model, before anything is sent."""
    if not folder.is_dir():
        problem = f"{str(folder)!r} is not a folder"
    elif not (folder / "config.json").is_file():
        problem = f"{str(folder)!r} has no config.json"
    elif not any(folder.glob("*.safetensors")):
        problem = f"{str(folder)!r} has no *.safetensors; pickled weights (*.bin, *.pt) are never read"
    else:
        return
    cure = "Give a folder with config.json, *.safetensors and the tokenizer's files."
    raise InvalidArgument(Reason.INVALID_MODEL, problem, cure=cure)


def _model(message: pb.Model) -> Model:
    return Model(
        name=message.name,
        description=message.description,
        latest_version=message.latest_version or None,
        create_time=_wire.instant(message.create_time),
        creator=message.creator,
    )


def _version(message: pb.ModelVersion) -> ModelVersion:
    return ModelVersion(
        name=message.name,
        manifest=_wire.manifest(message.manifest),
        kind=_wire.word(ArtifactKind, events_pb2.ArtifactKind.DESCRIPTOR, message.kind),
        architecture=architecture_from_proto(message.architecture),
        parameters=message.architecture.parameters,
        lineage=_lineage(message.lineage),
        metrics=MappingProxyType(dict(message.metrics)),
        size_bytes=message.size_bytes,
        create_time=_wire.instant(message.create_time),
        creator=message.creator,
    )


def _lineage(message: pb.Lineage) -> Lineage:
    return Lineage(
        base=_wire.version_ref(message.base),
        dataset=_wire.version_ref(message.dataset),
        validation=_wire.version_ref(message.validation),
        job=message.job or None,
        attempt=message.attempt,
        spec=spec_from_proto(message.spec) if message.HasField("spec") else None,
        environment=_wire.frozen(message.environment),
    )
