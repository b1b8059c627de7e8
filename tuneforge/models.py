"""Models and their versions with lineage: made and changed here, read in `tuneforge.model_lookup`.

The aliases that point to versions are in `tuneforge.aliases`.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from google.protobuf.field_mask_pb2 import FieldMask

from tuneforge import _short_names as names
from tuneforge import _wire
from tuneforge._check_wire import report_to_proto
from tuneforge._transport import new_request_id
from tuneforge.blobs import Progress
from tuneforge.checks import Check
from tuneforge.errors import AlreadyExists, NotFound
from tuneforge.imports import ImportCall, ImportOptions, OnImportProgress, unless_refused
from tuneforge.manifest import Manifest
from tuneforge.model_folders import adapter_files, model_files, upload_configuration
from tuneforge.model_lookup import ModelLookup
from tuneforge.model_values import (
    Lineage,
    Model,
    ModelFacts,
    ModelFilter,
    ModelProfile,
    ModelVersion,
    SizeClass,
    ValidationReport,
    given_facts,
    model_from_proto,
    report_from_proto,
    version_from_proto,
)
from tuneforge.v1 import models_pb2 as pb
from tuneforge.v1 import retention_pb2, types_pb2, validations_pb2

__all__ = [
    "Lineage",
    "Model",
    "ModelFacts",
    "ModelFilter",
    "ModelProfile",
    "ModelVersion",
    "Models",
    "SizeClass",
    "ValidationReport",
]

_IMPORT_DEADLINE_S = 600.0
"""The registry looks at every number of all weight files before it makes a version."""


class Models(ModelLookup):
    """Models of one project; `client.models`. Versions are named `id/3`, `id@alias`, `id` (newest) or by whole name."""

    def import_folder(
        self,
        path: str | os.PathLike[str],
        model: str,
        *,
        description: str = "",
        facts: ModelFacts | None = None,
        progress: Progress | None = None,
    ) -> ModelVersion:
        """Makes a version from a Hugging Face model folder; the same content gives the same version.

        Args:
            path: Folder with `config.json`, `*.safetensors` and the tokenizer's files. Other files in it, such as
                pickled weights and code, are left where they are; links are followed (a hub's cache is made of them).
            model: Id or name of the model; it is created when missing.
            description: Of the model, when it is created.
            facts: What is said of the version, when it is new.
            progress: Told the number of bytes moved, piece by piece.

        Raises:
            InvalidArgument: It is no such folder, or its architecture is not supported.
            TuneforgeError: The registry refused or stayed away.
        """
        folder = Path(path)
        files = model_files(folder)
        name = names.model(self._project, model)
        self._create_if_missing(name, description)
        manifest = self._blobs().upload_files(files, progress=progress)
        return self._create_version(name, manifest, facts=facts)

    def import_adapter(
        self,
        path: str | os.PathLike[str],
        model: str,
        *,
        base: str,
        description: str = "",
        progress: Progress | None = None,
    ) -> ModelVersion:
        """Makes a version from the folder of a LoRA adapter, bound to the digest of its base.

        Args:
            path: Folder with `adapter_config.json` and `adapter_model.safetensors`.
            model: Id or name of the model; it is created when missing.
            base: The version that it was trained on: `id/3`, `id@alias`, a whole name, or `id` for the newest one.
            description: Of the model, when it is created.
            progress: Told the number of bytes moved, piece by piece.

        Raises:
            InvalidArgument: It is no such folder.
            FailedPrecondition: The adapter does not fit the base.
        """
        folder = Path(path)
        files = adapter_files(folder)
        reference = self._reference(base)
        name = names.model(self._project, model)
        self._create_if_missing(name, description)
        manifest = self._blobs().upload_files(files, progress=progress)
        return self._create_version(name, manifest, reference)

    def import_config(
        self,
        path: str | os.PathLike[str],
        model: str,
        *,
        seed: int,
        description: str = "",
        progress: Progress | None = None,
    ) -> ModelVersion:
        """Makes a version from a configuration alone: its weights are drawn from a seed at each load.

        Args:
            path: `config.json` or its folder, with the tokenizer's files beside it.
            model: Id or name of the model; it is created when missing.
            seed: Of the weights; another seed is another model.
            description: Of the model, when it is created.
            progress: Told the number of bytes moved, piece by piece.

        Raises:
            InvalidArgument: There is no configuration or no tokenizer.
        """
        name = names.model(self._project, model)
        files = upload_configuration(Path(path), seed, self._blobs(), progress)
        self._create_if_missing(name, description)
        return self._create_version(name, files)

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
            model: Id or name of the model; it is created when missing, and gone again when the import is refused.
            description: Of the model, when it is created.
            options: Which files are taken, and with which of the operator's connections.
            progress: Told how far it is.

        Raises:
            InvalidArgument: The address is not allowed, or its files are no model that is supported.
            TuneforgeError: The registry or the place refused or stayed away.
        """
        wanted = options or ImportOptions()
        base = self._reference(wanted.base) if wanted.base else None
        name = names.model(self._project, model)
        made = self._create_if_missing(name, description)
        asked = ImportCall(
            registry=self._connections.registry,
            parent=name,
            uri=uri,
            options=wanted,
            base=base,
            progress=progress,
        )
        with unless_refused(made, lambda: self._delete_empty(name)):
            return version_from_proto(asked.model_version())

    def create(self, model: str, *, description: str = "", facts: ModelFacts | None = None) -> Model:
        """Creates a model without versions: a location, until the first one comes.

        Args:
            model: Its id.
            description: What it is, for people.
            facts: Tags and all else that is known already; its description counts when the other is empty.

        Raises:
            AlreadyExists: There is one with this id.
        """
        parent, _, model_id = names.model(self._project, model).partition("/models/")
        wanted = pb.Model(**given_facts(facts or ModelFacts()))
        wanted.description = description or wanted.description
        request = pb.CreateModelRequest(parent=parent, model_id=model_id, model=wanted, request_id=new_request_id())
        registry = self._connections.registry
        return model_from_proto(registry.call(registry.stub.CreateModel, request))

    def update(self, model: str, facts: ModelFacts, *, expected: Model | None = None) -> Model:
        """Changes what is given of a model's facts.

        Args:
            model: Id or name.
            facts: The new ones; None leaves a field as it is.
            expected: The model as it was read: the change happens only when nobody changed it since.

        Raises:
            Conflict: Somebody changed it since `expected` was read.
        """
        given = given_facts(facts)
        wanted = pb.Model(name=names.model(self._project, model), etag=expected.etag if expected else "", **given)
        request = pb.UpdateModelRequest(
            model=wanted, update_mask=FieldMask(paths=sorted(given)), request_id=new_request_id()
        )
        registry = self._connections.registry
        return model_from_proto(registry.call(registry.stub.UpdateModel, request))

    def update_version(self, version: str, facts: ModelFacts, *, expected: ModelVersion | None = None) -> ModelVersion:
        """Changes what is given of a version's facts; its files, lineage and figures never change.

        Args:
            version: `id/3`, `id@alias`, a whole name, or `id` for the newest one.
            facts: The new ones; None leaves a field as it is.
            expected: The version as it was read: the change happens only when nobody changed it since.

        Raises:
            Conflict: Somebody changed it since `expected` was read.
        """
        given = given_facts(facts)
        name = expected.name if expected else self._version_name(version)
        wanted = pb.ModelVersion(name=name, etag=expected.etag if expected else "", **given)
        request = pb.UpdateModelVersionRequest(
            version=wanted, update_mask=FieldMask(paths=sorted(given)), request_id=new_request_id()
        )
        registry = self._connections.registry
        return version_from_proto(registry.call(registry.stub.UpdateModelVersion, request))

    def add_validation(
        self, version: str, checks: Sequence[Check], *, source: str = "", not_run: Mapping[str, str] | None = None
    ) -> ValidationReport:
        """Keeps what an examination of a version found.

        Args:
            version: `id/3`, `id@alias`, a whole name, or `id` for the newest one.
            checks: What was found, 1 to 100 checks.
            source: Who examined; empty: the caller.
            not_run: Checks that could not be made, with the reason.
        """
        registry = self._connections.registry
        request = validations_pb2.CreateValidationReportRequest(
            parent=self._version_name(version),
            report=report_to_proto(checks, not_run or {}, source),
            request_id=new_request_id(),
        )
        return report_from_proto(registry.call(registry.stub.CreateValidationReport, request))

    def _reference(self, base: str) -> types_pb2.VersionRef:
        """Returns a version by its short name, with its digest."""
        found = self.version(base)
        return types_pb2.VersionRef(version=found.name, digest=found.manifest.digest)

    def _create_version(
        self, name: str, files: Manifest, base: types_pb2.VersionRef | None = None, facts: ModelFacts | None = None
    ) -> ModelVersion:
        request = pb.CreateModelVersionRequest(
            parent=name,
            manifest=_wire.manifest_to_proto(files),
            base=base,
            version=pb.ModelVersion(**given_facts(facts)) if facts else None,
            request_id=new_request_id(),
        )
        registry = self._connections.registry
        return version_from_proto(
            registry.call(registry.stub.CreateModelVersion, request, timeout_s=_IMPORT_DEADLINE_S)
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
        request = retention_pb2.DeleteModelRequest(
            name=name, reason="the import was refused", request_id=new_request_id()
        )
        registry.call(registry.stub.DeleteModel, request)
