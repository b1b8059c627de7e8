"""What every new version gets in the transaction that makes it: its blobs, its place in the graph, its signature."""

from collections.abc import Sequence

from sqlalchemy import Connection, select

from services.grpckit.errors import FieldViolation, Reason, ServiceError, invalid_fields
from services.registry.blobs.store import add_uses
from services.registry.datasets.resources import DatasetVersion
from services.registry.library import now_us
from services.registry.lineage.store import Parent, add_edges
from services.registry.lineage.things import MOST_ADAPTERS, Role
from services.registry.models.resources import ArtifactKind, ModelVersion
from services.registry.retention.holders import living
from services.registry.signing.keys import Signer
from services.registry.signing.store import sign_version
from services.registry.tables import MODEL_VERSIONS
from tuneforge.manifest import Manifest, ManifestFile
from tuneforge.names import ModelVersionName
from tuneforge.v1 import models_pb2, types_pb2


def seal_dataset_version(
    connection: Connection, signer: Signer, version: DatasetVersion, parents: Sequence[Parent] = ()
) -> DatasetVersion:
    """Puts a version of a data set into the graph and signs it; one that stands already is left as it is.

    Args:
        connection: The transaction that makes the version.
        signer: `library.signer`.
        version: What was made.
        parents: What it was made from, such as `(address, Role.SOURCE)` or `(another version, Role.PARENT)`.

    Raises:
        ServiceError: As `add_edges` and `add_uses`.
    """
    add_edges(connection, str(version.name), parents)
    manifest, time_us = version.content.manifest, version.create_time_us
    add_uses(connection, str(version.name), manifest, time_us=now_us())
    sign_version(connection, signer, str(version.name), manifest, time_us=time_us)
    return version


def seal_model_version(
    connection: Connection, signer: Signer, version: ModelVersion, parents: Sequence[Parent] = ()
) -> ModelVersion:
    """Puts a version of a model into the graph, by its lineage and further parents, and signs it.

    The job that made it is put into the graph with it.

    Args:
        connection: The transaction that makes the version.
        signer: `library.signer`.
        version: What was made.
        parents: What it was made from beside its lineage, such as `(address, Role.SOURCE)`.

    Raises:
        ServiceError: As `add_edges` and `add_uses`.
    """
    if version.content.kind is ArtifactKind.ADAPTER:
        _require_few_adapters(connection, version)
    record = models_pb2.ModelVersion.FromString(version.content.record)
    inputs = _inputs(record.lineage)
    _require_living(connection, inputs)
    if record.lineage.job:
        add_edges(connection, record.lineage.job, inputs)
        inputs = [*inputs, (record.lineage.job, Role.JOB)]
    add_edges(connection, str(version.name), [*inputs, *parents])
    manifest = manifest_of(record.manifest)
    add_uses(connection, str(version.name), manifest, time_us=now_us())
    sign_version(connection, signer, str(version.name), manifest, time_us=version.create_time_us)
    return version


def _require_few_adapters(connection: Connection, version: ModelVersion) -> None:
    base, count = version.content.origin.base_version, 1
    while base:
        name = ModelVersionName.parse(base)
        row = connection.execute(
            select(MODEL_VERSIONS.c.kind, MODEL_VERSIONS.c.base_version).where(
                MODEL_VERSIONS.c.project == name.project,
                MODEL_VERSIONS.c.model == name.model,
                MODEL_VERSIONS.c.version == name.version,
            )
        ).one_or_none()
        if row is None or row.kind != ArtifactKind.ADAPTER:
            return
        base, count = row.base_version or "", count + 1
        if count > MOST_ADAPTERS:
            raise ServiceError(
                Reason.LINEAGE_DEPTH,
                f"{version.name} would be adapter {count} on top of each other; at most {MOST_ADAPTERS} are taken",
                metadata={"name": str(version.name), "limit": str(MOST_ADAPTERS)},
            )


def manifest_of(message: types_pb2.Manifest) -> Manifest:
    """Returns the manifest of a stored message."""
    return Manifest.of(ManifestFile(each.path, each.sha256, each.size_bytes) for each in message.files)


def _require_living(connection: Connection, inputs: Sequence[Parent]) -> None:
    """Refuses what was made from a version that somebody has deleted since it was looked up."""
    names = {name for name, _ in inputs}
    gone = names - set(living(connection, names))
    if gone:
        violations = [
            FieldViolation(f"lineage.{role.value.lower()}.version", f"{name!r} is not stored here any more")
            for name, role in inputs
            if name in gone
        ]
        raise invalid_fields(violations)


def _inputs(lineage: models_pb2.Lineage) -> list[Parent]:
    references = ((lineage.base, Role.BASE), (lineage.dataset, Role.DATASET), (lineage.validation, Role.VALIDATION))
    return [(reference.version, role) for reference, role in references if reference.version]
