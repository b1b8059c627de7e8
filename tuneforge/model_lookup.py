"""What models and their versions are: read and brought here, never changed. Making them is in `tuneforge.models`."""

import os
from collections.abc import Callable, Iterator, Sequence

from tuneforge import _short_names as names
from tuneforge._connections import Connections
from tuneforge._downloads import bring, wanted_files
from tuneforge.blobs import BlobClient, Progress
from tuneforge.model_values import (
    Model,
    ModelFilter,
    ModelProfile,
    ModelVersion,
    ValidationReport,
    filter_to_proto,
    model_from_proto,
    profile_from_proto,
    report_from_proto,
    version_from_proto,
)
from tuneforge.signatures import write_signature
from tuneforge.v1 import models_pb2 as pb
from tuneforge.v1 import profiles_pb2, validations_pb2


class ModelLookup:
    """Reads the models of one project. Versions are named `id/3`, `id@alias`, `id` (newest) or by whole name."""

    def __init__(self, connections: Connections, project: str, blobs: Callable[[], BlobClient]) -> None:
        self._connections = connections
        self._project = project
        self._blobs = blobs

    def get(self, model: str) -> Model:
        """Returns a model by id or name."""
        registry = self._connections.registry
        return model_from_proto(
            registry.call(registry.stub.GetModel, pb.GetModelRequest(name=names.model(self._project, model)))
        )

    def list(self, wanted: ModelFilter | None = None, *, order_by: str = "") -> Iterator[Model]:
        """Yields the project's models.

        Args:
            wanted: Only these; a model matches when it or its newest version does.
            order_by: `name` (default), `date`, `size` or `metric:NAME`, with ` desc` for the largest first.
        """
        registry = self._connections.registry
        request = pb.ListModelsRequest(parent=names.parent(self._project), order_by=order_by)
        if wanted is not None:
            request.filter.CopyFrom(filter_to_proto(wanted))
        for page in registry.pages(registry.stub.ListModels, request):
            yield from map(model_from_proto, page.models)

    def version(self, version: str) -> ModelVersion:
        """Returns a version: `id/3`, `id@alias`, a whole name, or `id` for the newest one."""
        registry = self._connections.registry
        request = pb.GetModelVersionRequest(name=names.model_version(self._project, version))
        return version_from_proto(registry.call(registry.stub.GetModelVersion, request))

    def versions(self, model: str, wanted: ModelFilter | None = None, *, order_by: str = "") -> Iterator[ModelVersion]:
        """Yields the versions of a model; their architectures have no tensors.

        Args:
            model: Id or name.
            wanted: Only these.
            order_by: `date desc` (default), `size`, `name` or `metric:NAME`, with ` desc` for the largest first.
        """
        registry = self._connections.registry
        request = pb.ListModelVersionsRequest(parent=names.model(self._project, model), order_by=order_by)
        if wanted is not None:
            request.filter.CopyFrom(filter_to_proto(wanted))
        for page in registry.pages(registry.stub.ListModelVersions, request):
            yield from map(version_from_proto, page.versions)

    def card(self, version: str) -> str:
        """Returns the card of a version in Markdown, written at this moment."""
        registry = self._connections.registry
        request = profiles_pb2.GetModelCardRequest(name=names.model_version(self._project, version))
        return registry.call(registry.stub.GetModelCard, request).markdown

    def profile(self, version: str, *, precision: str = "") -> ModelProfile:
        """Returns what a version needs to be served.

        Args:
            version: `id/3`, `id@alias`, a whole name, or `id` for the newest one.
            precision: `fp32`, `fp16`, `bf16`, `fp8`, `int8` or `int4`; empty: that of the weights.
        """
        registry = self._connections.registry
        request = profiles_pb2.GetModelProfileRequest(
            name=names.model_version(self._project, version), precision=precision
        )
        return profile_from_proto(registry.call(registry.stub.GetModelProfile, request))

    def validations(self, version: str) -> Iterator[ValidationReport]:
        """Yields the reports on a version, newest first."""
        registry = self._connections.registry
        request = validations_pb2.ListValidationReportsRequest(parent=names.model_version(self._project, version))
        for page in registry.pages(registry.stub.ListValidationReports, request):
            yield from map(report_from_proto, page.reports)

    def download(
        self,
        version: str,
        folder: str | os.PathLike[str],
        *,
        include: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> ModelVersion:
        """Brings the files of a version into a folder, verified by digest; goes on where an earlier one broke off.

        With `include` only files that fit a pattern, e.g. `*.json`. Others in the folder stay as they are. Beside all
        files the signature is put as `model.sig`, for `model_signing verify key`, unless one of them is called so.

        Raises:
            InvalidArgument: No file fits a pattern.
            IntegrityError: Bytes that arrived are not those of the manifest.
            TuneforgeError: There is no such version, or the registry stayed away.
        """
        found = self.version(version)
        wanted = wanted_files(found.manifest, include)
        target = bring(self._blobs(), wanted, folder, progress)
        if wanted is found.manifest:
            write_signature(target, found.name, wanted, found.signature)
        return found

    def _version_name(self, version: str) -> str:
        """Returns the name of a version with its number."""
        name = names.model_version(self._project, version)
        return self.version(version).name if "/aliases/" in name or name.endswith("/latest") else name
