"""The rows of versions of models. See `collections.py` for the manners of such functions."""

from typing import Any

from sqlalchemy import Connection, Row, insert, select

from services.grpckit.errors import not_found
from services.grpckit.pages import Page
from services.registry.collections import (
    Collection,
    affordable,
    create_collection,
    find_collection,
    get_collection,
    newest_first,
    next_version,
    one_version,
    versions_of,
)
from services.registry.models.resources import ArtifactKind, ModelContent, ModelVersion, Origin
from services.registry.tables import MODEL_VERSIONS
from tuneforge.names import ModelName, ModelVersionName


def find_model_version(connection: Connection, name: ModelName, digest: str) -> ModelVersion | None:
    """Returns the oldest version of a model with this content; None when the content is new to the model.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such model.
    """
    get_collection(connection, name)
    statement = versions_of(MODEL_VERSIONS, name).where(MODEL_VERSIONS.c.digest == digest)
    row = connection.execute(statement.order_by(MODEL_VERSIONS.c.version).limit(1)).one_or_none()
    return None if row is None else _model_version(row)


def find_publication(connection: Connection, job: str) -> ModelVersion | None:
    """Returns the version that a job published; None when it has not."""
    row = connection.execute(select(MODEL_VERSIONS).where(MODEL_VERSIONS.c.job == job)).one_or_none()
    return None if row is None else _model_version(row)


def _add_model_version(
    connection: Connection, name: ModelName, content: ModelContent, *, creator: str, time_us: int
) -> ModelVersion:
    number = next_version(connection, name)
    origin = content.origin
    connection.execute(
        insert(MODEL_VERSIONS).values(
            project=name.project,
            model=name.model,
            version=number,
            digest=content.digest,
            kind=content.kind.value,
            size_bytes=content.size_bytes,
            import_digest=None if origin.job else content.digest,
            job=origin.job or None,
            base_version=origin.base_version or None,
            dataset_version=origin.dataset_version or None,
            record=content.record,
            tensors=content.tensors,
            create_time_us=time_us,
            creator=creator,
        )
    )
    return ModelVersion(name=name.version(number), content=content, create_time_us=time_us, creator=creator)


def import_model_version(
    connection: Connection, name: ModelName, content: ModelContent, *, creator: str, time_us: int
) -> ModelVersion:
    """Adds an imported version, or returns the oldest one with the same content.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such model.
    """
    found = find_model_version(connection, name, content.digest)
    return found or _add_model_version(connection, name, content, creator=creator, time_us=time_us)


def publish_model_version(
    connection: Connection, name: ModelName, content: ModelContent, *, creator: str, time_us: int
) -> ModelVersion:
    """Adds the version that a job made, and the model when it is missing; returns the one that the job has made before.

    The caller compares: what is returned may be of another model or have other content.
    """
    found = find_publication(connection, content.origin.job)
    if found is not None:
        return found
    if find_collection(connection, name) is None:
        create_collection(connection, Collection(name=name, description="", create_time_us=time_us, creator=creator))
    return _add_model_version(connection, name, content, creator=creator, time_us=time_us)


def get_model_version(connection: Connection, name: ModelVersionName) -> ModelVersion:
    """Returns a version, the newest one for `LATEST`.

    Raises:
        ServiceError: `NOT_FOUND`.
    """
    row = one_version(connection, MODEL_VERSIONS, name)
    if row is None:
        raise not_found("model version", name)
    return _model_version(row)


def list_model_versions(connection: Connection, name: ModelName, page: Page) -> list[ModelVersion]:
    """Returns a page's versions without their tensors, newest first, and one more when there are more.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such model.
    """
    before = page.after_number(get_collection(connection, name).latest + 1)
    columns = [column for column in MODEL_VERSIONS.c if column.name != "tensors"]
    statement = newest_first(MODEL_VERSIONS, name, before, page).with_only_columns(*columns)
    return [_model_version(row) for row in affordable(connection.execute(statement), "record")]


def _model_version(row: Row[Any]) -> ModelVersion:
    origin = Origin(job=row.job or "", base_version=row.base_version or "", dataset_version=row.dataset_version or "")
    return ModelVersion(
        name=ModelVersionName(row.project, row.model, row.version),
        content=ModelContent(
            kind=ArtifactKind(row.kind),
            digest=row.digest,
            size_bytes=row.size_bytes,
            origin=origin,
            record=row.record,
            tensors=getattr(row, "tensors", b""),
        ),
        create_time_us=row.create_time_us,
        creator=row.creator,
    )
