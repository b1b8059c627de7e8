"""Data sets and models as collections of numbered versions: the rows and queries that both kinds share.

Plain functions on a connection, so that the caller decides what is one transaction. Functions that change something
must run in `Database.write`, the others in `read`. Knows no grpc and no messages.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Table, bindparam, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from services.grpckit.errors import Reason, ServiceError, not_found
from services.grpckit.pages import LARGEST_PAGE_BYTES, Page
from services.registry.tables import DATASET_VERSIONS, DATASETS, MODEL_VERSIONS, MODELS
from tuneforge.names import LATEST, DatasetName, DatasetVersionName, ModelName, ModelVersionName

LONGEST_DESCRIPTION = 4096
"""Characters; enough for a page of text, too little to hide a file in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """A data set or a model: a name under which versions grow."""

    name: DatasetName | ModelName
    description: str
    create_time_us: int
    creator: str
    latest: int = 0
    """Number of the newest version; 0 when there is none."""

    @property
    def collection_id(self) -> str:
        """The last part of its name."""
        return self.name.dataset if isinstance(self.name, DatasetName) else self.name.model


def create_collection(connection: Connection, collection: Collection) -> Collection:
    """Adds a data set or a model; in the place of a deleted one its versions go on with the next number.

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
    again = {key: value for key, value in row.items() if key != "latest"} | {"delete_time_us": None}
    is_deleted = (table.c.project == project, table.c.id == collection_id, table.c.delete_time_us.is_not(None))
    if connection.execute(update(table).where(*is_deleted).values(**again)).rowcount:
        return collection
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
    row = find_collection(connection, name)
    if row is None:
        raise not_found(_table_of(name)[1], name)
    return _collection(row, type(name))


def find_collection(connection: Connection, name: DatasetName | ModelName) -> Row[Any] | None:
    """Returns the row of a data set or a model; None when there is none."""
    project, collection_id = _key_of(name)
    statement = _COLLECTIONS[_table_of(name)[0]]
    return connection.execute(statement, {"of_project": project, "of_id": collection_id}).one_or_none()


# Built once: to build a query costs more than to run it.
_COLLECTIONS = {
    table: select(table).where(
        table.c.project == bindparam("of_project"),
        table.c.id == bindparam("of_id"),
        table.c.delete_time_us.is_(None),
    )
    for table in (DATASETS, MODELS)
}


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


def next_version(connection: Connection, name: DatasetName | ModelName) -> int:
    """Takes the next number of a version.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such data set or model.
    """
    table, kind = _table_of(name)
    project, collection_id = _key_of(name)
    # Not the newest one's next: numbers of deleted versions are not given again.
    versions = DATASET_VERSIONS if table is DATASETS else MODEL_VERSIONS
    taken = (versions.c.project == project, _parent_column(versions) == collection_id)
    statement = (
        update(table)
        .where(table.c.project == project, table.c.id == collection_id, table.c.delete_time_us.is_(None))
        .values(latest=select(func.coalesce(func.max(versions.c.version), 0) + 1).where(*taken).scalar_subquery())
        .returning(table.c.latest)
    )
    number = connection.execute(statement).scalar_one_or_none()
    if number is None:
        raise not_found(kind, name)
    return int(number)


# --- versions ---------------------------------------------------------------------------------------------------------
def _parent_column(table: Table) -> Any:
    return table.c.dataset if table is DATASET_VERSIONS else table.c.model


def versions_of(table: Table, parent: DatasetName | ModelName) -> Any:
    """Returns the query for all versions of a data set or a model that are not deleted."""
    project, collection_id = _key_of(parent)
    return select(table).where(
        table.c.project == project, _parent_column(table) == collection_id, table.c.delete_time_us.is_(None)
    )


def one_version(connection: Connection, table: Table, name: DatasetVersionName | ModelVersionName) -> Row[Any] | None:
    """Returns the row of a version, the newest one for `LATEST`; None when there is none."""
    statement = versions_of(table, name.parent)
    if name.version != LATEST:
        statement = statement.where(table.c.version == name.version)
    return connection.execute(statement.order_by(table.c.version.desc()).limit(1)).one_or_none()


def newest_first(table: Table, parent: DatasetName | ModelName, before: int, page: Page) -> Any:
    """Returns the query for the versions with numbers below one, newest first, and one more than the page holds."""
    statement = versions_of(table, parent).where(table.c.version < before)
    return statement.order_by(table.c.version.desc()).limit(page.size + 1)


def affordable(rows: Iterable[Row[Any]], column: str) -> Iterator[Row[Any]]:
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
