"""The registry's rows: plain functions on a connection, so that the caller decides what is one transaction.

Knows no grpc and no messages. Functions that change something must run in `Database.write`, the others in `read`.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Connection, Row, Table, insert, select, update
from sqlalchemy.exc import IntegrityError

from services.grpckit.errors import Reason, ServiceError, not_found
from services.grpckit.pages import LARGEST_PAGE_BYTES, Page
from services.registry.resources import (
    ArtifactKind,
    Collection,
    DatasetContent,
    DatasetVersion,
    ModelContent,
    ModelVersion,
    Origin,
    RowShape,
)
from services.registry.tables import BLOBS, DATASET_VERSIONS, DATASETS, MODEL_VERSIONS, MODELS
from tuneforge.manifest import Manifest
from tuneforge.names import LATEST, DatasetName, DatasetVersionName, ModelName, ModelVersionName

# Digests in one IN clause: far below every database's limit of parameters.
_DIGESTS_PER_QUERY = 500


# --- data sets and models -------------------------------------------------------------------------------------------
def create_collection(connection: Connection, collection: Collection) -> Collection:
    """Adds a data set or a model.

    Raises:
        ServiceError: `ALREADY_EXISTS`.
    """
    table, kind = _table_of(collection.name)
    project, collection_id = _key_of(collection.name)
    row = {
        "project": project,
        "id": collection_id,
        "description": collection.description,
        "create_time_us": collection.create_time_us,
        "creator": collection.creator,
        "latest": 0,
    }
    try:
        connection.execute(insert(table).values(**row))
    except IntegrityError:
        name = str(collection.name)
        raise ServiceError(Reason.ALREADY_EXISTS, f"{kind} {name} exists already", metadata={"name": name}) from None
    return collection


def get_collection(connection: Connection, name: DatasetName | ModelName) -> Collection:
    """Returns a data set or a model.

    Raises:
        ServiceError: `NOT_FOUND`.
    """
    row = _find_collection(connection, name)
    if row is None:
        raise not_found(_table_of(name)[1], name)
    return _collection(row, type(name))


def list_collections(
    connection: Connection, kind: type[DatasetName] | type[ModelName], project: str, page: Page
) -> list[Collection]:
    """Returns a page's data sets or models by id, and one more when there are more."""
    table = DATASETS if kind is DatasetName else MODELS
    rows = connection.execute(
        select(table)
        .where(table.c.project == project, table.c.id > (page.after or ""))
        .order_by(table.c.id)
        .limit(page.size + 1)
    )
    return [_collection(row, kind) for row in rows]


def _find_collection(connection: Connection, name: DatasetName | ModelName) -> Row[Any] | None:
    table, _ = _table_of(name)
    project, collection_id = _key_of(name)
    return connection.execute(
        select(table).where(table.c.project == project, table.c.id == collection_id)
    ).one_or_none()


def _table_of(name: DatasetName | ModelName) -> tuple[Table, str]:
    return (DATASETS, "data set") if isinstance(name, DatasetName) else (MODELS, "model")


def _key_of(name: DatasetName | ModelName) -> tuple[str, str]:
    return name.project, name.dataset if isinstance(name, DatasetName) else name.model


def _collection(row: Row[Any], kind: type[DatasetName] | type[ModelName]) -> Collection:
    return Collection(
        name=kind(row.project, row.id),
        description=row.description,
        create_time_us=row.create_time_us,
        creator=row.creator,
        latest=row.latest,
    )


def _next_version(connection: Connection, name: DatasetName | ModelName) -> int:
    table, kind = _table_of(name)
    project, collection_id = _key_of(name)
    statement = (
        update(table)
        .where(table.c.project == project, table.c.id == collection_id)
        .values(latest=table.c.latest + 1)
        .returning(table.c.latest)
    )
    number = connection.execute(statement).scalar_one_or_none()
    if number is None:
        raise not_found(kind, name)
    return int(number)


# --- versions of data sets ------------------------------------------------------------------------------------------
def find_dataset_content(connection: Connection, name: DatasetName, digest: str) -> DatasetContent | None:
    """Returns what was found earlier in files with this digest; None when they are new to the data set.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such data set.
    """
    get_collection(connection, name)
    row = connection.execute(_versions(DATASET_VERSIONS, name).where(DATASET_VERSIONS.c.digest == digest)).one_or_none()
    return None if row is None else _dataset_version(row).content


def add_dataset_version(
    connection: Connection, name: DatasetName, content: DatasetContent, *, creator: str, time_us: int
) -> DatasetVersion:
    """Adds a version, or returns the one with the same content.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such data set.
    """
    digest = content.manifest.digest
    row = connection.execute(_versions(DATASET_VERSIONS, name).where(DATASET_VERSIONS.c.digest == digest)).one_or_none()
    if row is not None:
        return _dataset_version(row)
    number = _next_version(connection, name)
    connection.execute(
        insert(DATASET_VERSIONS).values(
            project=name.project,
            dataset=name.dataset,
            version=number,
            digest=digest,
            shape=content.shape.value,
            rows=content.rows,
            size_bytes=content.manifest.size_bytes,
            manifest=content.manifest.to_json().encode(),
            create_time_us=time_us,
            creator=creator,
        )
    )
    return DatasetVersion(name=name.version(number), content=content, create_time_us=time_us, creator=creator)


def get_dataset_version(connection: Connection, name: DatasetVersionName) -> DatasetVersion:
    """Returns a version, the newest one for `LATEST`.

    Raises:
        ServiceError: `NOT_FOUND`.
    """
    row = _one_version(connection, DATASET_VERSIONS, name)
    if row is None:
        raise not_found("data set version", name)
    return _dataset_version(row)


def list_dataset_versions(connection: Connection, name: DatasetName, page: Page) -> list[DatasetVersion]:
    """Returns a page's versions, newest first, and one more when there are more.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such data set.
    """
    before = page.after_number(get_collection(connection, name).latest + 1)
    rows = connection.execute(_newest_first(DATASET_VERSIONS, name, before, page))
    return [_dataset_version(row) for row in _affordable(rows, "manifest")]


def _dataset_version(row: Row[Any]) -> DatasetVersion:
    return DatasetVersion(
        name=DatasetVersionName(row.project, row.dataset, row.version),
        content=DatasetContent(manifest=Manifest.from_json(row.manifest), shape=RowShape(row.shape), rows=row.rows),
        create_time_us=row.create_time_us,
        creator=row.creator,
    )


# --- versions of models ---------------------------------------------------------------------------------------------
def find_model_version(connection: Connection, name: ModelName, digest: str) -> ModelVersion | None:
    """Returns the oldest version of a model with this content; None when the content is new to the model.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such model.
    """
    get_collection(connection, name)
    statement = _versions(MODEL_VERSIONS, name).where(MODEL_VERSIONS.c.digest == digest)
    row = connection.execute(statement.order_by(MODEL_VERSIONS.c.version).limit(1)).one_or_none()
    return None if row is None else _model_version(row)


def find_publication(connection: Connection, job: str) -> ModelVersion | None:
    """Returns the version that a job published; None when it has not."""
    row = connection.execute(select(MODEL_VERSIONS).where(MODEL_VERSIONS.c.job == job)).one_or_none()
    return None if row is None else _model_version(row)


def _add_model_version(
    connection: Connection, name: ModelName, content: ModelContent, *, creator: str, time_us: int
) -> ModelVersion:
    number = _next_version(connection, name)
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
    if _find_collection(connection, name) is None:
        create_collection(connection, Collection(name=name, description="", create_time_us=time_us, creator=creator))
    return _add_model_version(connection, name, content, creator=creator, time_us=time_us)


def get_model_version(connection: Connection, name: ModelVersionName) -> ModelVersion:
    """Returns a version, the newest one for `LATEST`.

    Raises:
        ServiceError: `NOT_FOUND`.
    """
    row = _one_version(connection, MODEL_VERSIONS, name)
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
    statement = _newest_first(MODEL_VERSIONS, name, before, page).with_only_columns(*columns)
    return [_model_version(row) for row in _affordable(connection.execute(statement), "record")]


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


# --- both kinds of versions -----------------------------------------------------------------------------------------
def _parent_column(table: Table) -> Any:
    return table.c.dataset if table is DATASET_VERSIONS else table.c.model


def _versions(table: Table, parent: DatasetName | ModelName) -> Any:
    project, collection_id = _key_of(parent)
    return select(table).where(table.c.project == project, _parent_column(table) == collection_id)


def _one_version(connection: Connection, table: Table, name: DatasetVersionName | ModelVersionName) -> Row[Any] | None:
    statement = _versions(table, name.parent)
    if name.version != LATEST:
        statement = statement.where(table.c.version == name.version)
    return connection.execute(statement.order_by(table.c.version.desc()).limit(1)).one_or_none()


def _newest_first(table: Table, parent: DatasetName | ModelName, before: int, page: Page) -> Any:
    statement = _versions(table, parent).where(table.c.version < before)
    return statement.order_by(table.c.version.desc()).limit(page.size + 1)


def _affordable(rows: Iterable[Row[Any]], column: str) -> Iterator[Row[Any]]:
    """Yields rows until they are more than any page can carry, so that large ones do not fill the memory.

    The servicer cuts the page by the size of its messages, which is at least half of what is stored: so twice a page,
    and the row that exceeds it, are always enough for it to see that there is more.
    """
    left = 2 * LARGEST_PAGE_BYTES
    for row in rows:
        yield row
        left -= len(getattr(row, column))
        if left < 0:
            return


# --- blobs ----------------------------------------------------------------------------------------------------------
def add_blob(connection: Connection, project: str, sha256: str, size_bytes: int, *, time_us: int) -> None:
    """Makes a blob visible in a project; does nothing when it is already."""
    if blob_sizes(connection, project, [sha256]):
        return
    connection.execute(
        insert(BLOBS).values(project=project, sha256=sha256, size_bytes=size_bytes, create_time_us=time_us)
    )


def blob_sizes(connection: Connection, project: str, digests: Iterable[str]) -> dict[str, int]:
    """Returns digest -> size in bytes of those blobs that the project has."""
    wanted = sorted(set(digests))
    sizes: dict[str, int] = {}
    for start in range(0, len(wanted), _DIGESTS_PER_QUERY):
        some = wanted[start : start + _DIGESTS_PER_QUERY]
        rows = connection.execute(
            select(BLOBS.c.sha256, BLOBS.c.size_bytes).where(BLOBS.c.project == project, BLOBS.c.sha256.in_(some))
        )
        sizes.update((row.sha256, row.size_bytes) for row in rows)
    return sizes
