"""How a version of a model comes to be: imported from files, or published once by the job that made it."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection

from services.grpckit.errors import FieldViolation, Reason, ServiceError, invalid_fields
from services.registry.blobs.store import blob_sizes
from services.registry.datasets.store import get_dataset_version
from services.registry.library import Library
from services.registry.manifests import require_stored
from services.registry.models import examining, references, store
from services.registry.models.resources import ArtifactKind, ModelVersion
from services.registry.models.shapes import Architecture, Tensor
from tuneforge.manifest import Manifest
from tuneforge.names import (
    DatasetVersionName,
    InvalidName,
    JobName,
    ModelName,
    ModelVersionName,
    parse_model_reference,
    project_of,
)
from tuneforge.v1 import models_pb2

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A version named in a lineage, with the digest that it is said to have; both empty when it is not set."""

    version: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What a job asks to have published, as it came over the wire."""

    model: ModelName
    manifest: Manifest
    kind: ArtifactKind | None
    job: str
    base: Reference = field(default_factory=Reference)
    dataset: Reference = field(default_factory=Reference)
    validation: Reference = field(default_factory=Reference)

    def projects(self) -> set[str]:
        """Returns the projects of all versions that the lineage names; their names must be well formed."""
        references = (self.base, self.dataset, self.validation)
        return {project_of(reference.version) for reference in references if reference.version}


@dataclass(frozen=True, slots=True)
class AdapterBase:
    """What an adapter that comes in was trained on: a whole model, or an adapter on one."""

    version: ModelVersion


def import_digest(manifest: Manifest, base: AdapterBase | None) -> str:
    """Returns what tells an import from others of its model: its files, and for an adapter its base's."""
    if base is None:
        return manifest.digest
    return hashlib.sha256(f"{manifest.digest} on {base.version.content.digest}".encode()).hexdigest()


async def find_import(
    library: Library, name: ModelName, manifest: Manifest, base: AdapterBase | None = None
) -> ModelVersion | None:
    """Returns the version of a model that has these files already, on the same base if it is an adapter.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such model.
    """

    def find(connection: Connection) -> ModelVersion | None:
        found = store.find_import(connection, name, import_digest(manifest, base))
        if found is None and base is None:
            return store.find_model_version(connection, name, manifest.digest)
        return found

    return await library.database.read(find)


async def find_base(library: Library, reference: Reference) -> AdapterBase:
    """Returns what an adapter that comes in says that it was trained on.

    Raises:
        InvalidName: The reference is not the name of a version or an alias.
        ServiceError: `NOT_FOUND`: import the base first; `BASE_MISMATCH`: it has another digest.
    """
    name = parse_model_reference(reference.version)
    version = await library.database.read(lambda connection: references.resolve(connection, name))
    if reference.digest and reference.digest != version.content.digest:
        raise ServiceError(
            Reason.BASE_MISMATCH,
            f"{version.name} has the digest {version.content.digest}, not {reference.digest[:64]}",
            metadata={"version": str(version.name), "digest": version.content.digest},
        )
    return AdapterBase(version=version)


async def examine_import(
    library: Library, name: ModelName, manifest: Manifest, base: AdapterBase | None = None
) -> Architecture | None:
    """Returns what the files of an import say of its architecture; None for an adapter, which has that of its base.

    Raises:
        ServiceError: `BLOB_MISSING`, `DIGEST_MISMATCH`, `INVALID_MODEL`, `BASE_MISMATCH`.
    """
    await _require_blobs(library, name.project, manifest)
    async with library.fetched(manifest) as folder:
        if base is None:
            return await library.check(examining.examine_model, folder)
        await library.check(examining.examine_adapter, folder, tensors_of(base.version))
    return None


async def find_publication(library: Library, publication: Publication) -> ModelVersion | None:
    """Returns the version that the job published before; None when this is the first time.

    Raises:
        ServiceError: `INVALID_FIELD` with all missing or wrong fields, `ALREADY_PUBLISHED`.
    """
    if violations := list(_violations(publication)):
        raise invalid_fields(violations)
    found = await library.database.read(lambda connection: store.find_publication(connection, publication.job))
    return None if found is None else same_publication(found, publication.model, publication.manifest.digest)


def same_publication(found: ModelVersion, model: ModelName, digest: str) -> ModelVersion:
    """Returns the version that a job published, when it is the one that it asks for again.

    Raises:
        ServiceError: `ALREADY_PUBLISHED`.
    """
    if found.name.parent == model and found.content.digest == digest:
        return found
    job = found.content.origin.job
    raise ServiceError(
        Reason.ALREADY_PUBLISHED,
        f"{job} has published {found.name} with the digest {found.content.digest}, not {model} with {digest}",
        metadata={"job": job, "version": str(found.name), "digest": found.content.digest},
    )


async def examine_publication(
    library: Library, publication: Publication
) -> tuple[Architecture | None, ModelVersion | None]:
    """Returns the architecture that the files of a whole model say, and the base when there is one.

    An adapter has no architecture of its own: that of its base counts.

    Raises:
        ServiceError: `INVALID_FIELD` for a lineage that names what is not there, `BLOB_MISSING`, `DIGEST_MISMATCH`,
            `INVALID_MODEL`.
    """
    base = await library.database.read(lambda connection: _resolve(connection, publication))
    await _require_blobs(library, publication.model.project, publication.manifest)
    async with library.fetched(publication.manifest) as folder:
        if publication.kind is ArtifactKind.ADAPTER:
            await library.check(examining.examine_adapter, folder, tensors_of(base) if base else None)
            return None, base
        return await library.check(examining.examine_model, folder), base


def tensors_of(version: ModelVersion) -> list[Tensor]:
    """Returns the weights of a version; for an adapter, of the whole model below it."""
    message = models_pb2.ModelVersion.FromString(version.content.tensors)
    return [
        Tensor(name=tensor.name, shape=tuple(tensor.shape), dtype=tensor.dtype)
        for tensor in message.architecture.tensors
    ]


async def _require_blobs(library: Library, project: str, manifest: Manifest) -> None:
    digests = [file.sha256 for file in manifest.files]
    sizes = await library.database.read(lambda connection: blob_sizes(connection, project, digests))
    require_stored(manifest, sizes)


def _violations(publication: Publication) -> Iterator[FieldViolation]:
    if publication.kind is None:
        yield FieldViolation("kind", "is not set; give MODEL or ADAPTER")
    if not publication.job:
        yield FieldViolation("lineage.job", "is not set; give projects/{project}/jobs/{job}")
    else:
        yield from _job_violations(publication)
    if publication.kind is ArtifactKind.ADAPTER and not publication.base.version:
        yield FieldViolation("lineage.base", "is not set; an adapter is of use with its base only")
    references = (
        ("base", publication.base, ModelVersionName),
        ("dataset", publication.dataset, DatasetVersionName),
        ("validation", publication.validation, DatasetVersionName),
    )
    for place, reference, kind in references:
        if reference.version:
            try:
                kind.parse(reference.version)
            except InvalidName as error:
                yield FieldViolation(f"lineage.{place}.version", str(error))


def _job_violations(publication: Publication) -> Iterator[FieldViolation]:
    try:
        project = JobName.parse(publication.job).project
    except InvalidName as error:
        yield FieldViolation("lineage.job", str(error))
        return
    if project != publication.model.project:
        yield FieldViolation("lineage.job", f"is of the project {project!r}, but the model of another one")


def _resolve(connection: Connection, publication: Publication) -> ModelVersion | None:
    """Returns the base; refuses a lineage that names versions which are not stored, or have other digests."""
    violations: list[FieldViolation] = []
    base = None
    if publication.base.version:
        base = _stored(partial(store.get_model_version, connection, ModelVersionName.parse(publication.base.version)))
        violations += _reference_violations("base", publication.base, base.content.digest if base else None)
    for place, reference in (("dataset", publication.dataset), ("validation", publication.validation)):
        if reference.version:
            rows = _stored(partial(get_dataset_version, connection, DatasetVersionName.parse(reference.version)))
            violations += _reference_violations(place, reference, rows.content.manifest.digest if rows else None)
    if violations:
        raise invalid_fields(violations)
    return base


def _stored(get: Callable[[], T]) -> T | None:
    try:
        return get()
    except ServiceError as error:
        if error.reason is Reason.NOT_FOUND:
            return None
        raise


def _reference_violations(place: str, reference: Reference, stored_digest: str | None) -> list[FieldViolation]:
    if stored_digest is None:
        return [FieldViolation(f"lineage.{place}.version", f"{reference.version!r} is not stored here")]
    if reference.digest and reference.digest != stored_digest:
        problem = f"is {reference.digest[:64]!r}, but {reference.version} has {stored_digest}"
        return [FieldViolation(f"lineage.{place}.digest", problem)]
    return []
