"""The rows of versions of data sets. See `collections.py` for the manners of such functions."""

from typing import Any

from sqlalchemy import Connection, Row, insert

from services.grpckit.errors import not_found
from services.grpckit.pages import Page
from services.registry.collections import (
    affordable,
    get_collection,
    newest_first,
    next_version,
    one_version,
    versions_of,
)
from services.registry.datasets.resources import DatasetContent, DatasetVersion, RowShape
from services.registry.tables import DATASET_VERSIONS
from tuneforge.manifest import Manifest
from tuneforge.names import DatasetName, DatasetVersionName


def find_dataset_content(
    connection: Connection, name: DatasetName, digest: str, split: str = ""
) -> DatasetContent | None:
    """Returns what was found earlier in files with this digest; None when they are new to the data set.

    Args:
        connection: To read with.
        name: The data set.
        digest: Of the manifest.
        split: How rows are divided, as `DatasetContent.split`.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such data set.
    """
    get_collection(connection, name)
    row = _with_content(connection, name, digest, split)
    return None if row is None else _dataset_version(row).content


def add_dataset_version(
    connection: Connection, name: DatasetName, content: DatasetContent, *, creator: str, time_us: int
) -> DatasetVersion:
    """Adds a version, or returns the one with the same content and split.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such data set.
    """
    row = _with_content(connection, name, content.manifest.digest, content.split)
    if row is not None:
        return _dataset_version(row)
    number = next_version(connection, name)
    connection.execute(
        insert(DATASET_VERSIONS).values(
            project=name.project,
            dataset=name.dataset,
            version=number,
            digest=content.manifest.digest,
            shape=content.shape.value,
            rows=content.rows,
            size_bytes=content.manifest.size_bytes,
            manifest=content.manifest.to_json().encode(),
            split=content.split,
            record=content.record,
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
    row = one_version(connection, DATASET_VERSIONS, name)
    if row is None:
        raise not_found("data set version", name)
    return _dataset_version(row)


def list_dataset_versions(connection: Connection, name: DatasetName, page: Page) -> list[DatasetVersion]:
    """Returns a page's versions, newest first, and one more when there are more.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such data set.
    """
    before = page.after_number(get_collection(connection, name).latest + 1)
    rows = connection.execute(newest_first(DATASET_VERSIONS, name, before, page))
    return [_dataset_version(row) for row in affordable(rows, "manifest")]


def _with_content(connection: Connection, name: DatasetName, digest: str, split: str) -> Row[Any] | None:
    table = DATASET_VERSIONS
    statement = versions_of(table, name).where(
        table.c.digest == digest, table.c.split == split, table.c.delete_time_us.is_(None)
    )
    return connection.execute(statement.order_by(table.c.version).limit(1)).one_or_none()


def _dataset_version(row: Row[Any]) -> DatasetVersion:
    return DatasetVersion(
        name=DatasetVersionName(row.project, row.dataset, row.version),
        content=DatasetContent(
            manifest=Manifest.from_json(row.manifest),
            shape=RowShape(row.shape),
            rows=row.rows,
            split=row.split,
            record=row.record,
        ),
        create_time_us=row.create_time_us,
        creator=row.creator,
    )
