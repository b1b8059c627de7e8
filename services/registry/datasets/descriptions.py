"""What people say of a data set (description, tags, metadata): its rules, its rows, and finding data sets by it."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, insert, or_, select, update

from services.grpckit.errors import FieldViolation, Reason, ServiceError, invalid_fields, not_found
from services.grpckit.pages import Page
from services.registry.collections import LONGEST_DESCRIPTION
from services.registry.datasets.resources import Dataset, DatasetFilter, RowShape
from services.registry.tables import DATASET_TAGS, DATASET_VERSIONS, DATASETS
from tuneforge.names import DatasetName
from tuneforge.v1 import datasets_pb2

CHANGEABLE = ("description", "tags", "metadata")
"""Paths of an update mask."""
MOST_TAGS = 32
MOST_KEYS = 64
LONGEST_TAG = 63
LONGEST_VALUE = 4096
LONGEST_TEXT = 200
"""Of the text that data sets are filtered by."""
_KEY = re.compile(r"[a-z0-9][a-z0-9_./-]{0,62}")


def check_description(message: datasets_pb2.Dataset) -> None:
    """Refuses what people may not say of a data set.

    Raises:
        ServiceError: `INVALID_FIELD` with all that is out of range.
    """
    if violations := list(_violations(message)):
        raise invalid_fields(violations[:20])


def _violations(message: datasets_pb2.Dataset) -> Iterator[FieldViolation]:
    if len(message.description) > LONGEST_DESCRIPTION:
        found = f"has {len(message.description)} characters; at most {LONGEST_DESCRIPTION} are taken"
        yield FieldViolation("dataset.description", found)
    if len(message.tags) > MOST_TAGS:
        yield FieldViolation("dataset.tags", f"has {len(message.tags)} entries; at most {MOST_TAGS} are taken")
    for number, tag in enumerate(message.tags[:MOST_TAGS]):
        if not is_tag(tag):
            form = f"give 1 to {LONGEST_TAG} printable characters, without space at the ends"
            yield FieldViolation(f"dataset.tags[{number}]", f"is {tag[:80]!r}; {form}")
    if len(message.metadata) > MOST_KEYS:
        yield FieldViolation("dataset.metadata", f"has {len(message.metadata)} keys; at most {MOST_KEYS} are taken")
    for key in sorted(message.metadata)[:MOST_KEYS]:
        if not _KEY.fullmatch(key):
            yield FieldViolation("dataset.metadata", f"has the key {key[:80]!r}; give 1 to 63 of a-z 0-9 _ . / -")
        elif (length := len(message.metadata[key])) > LONGEST_VALUE:
            found = f"has {length} characters; at most {LONGEST_VALUE} are taken"
            yield FieldViolation(f"dataset.metadata[{key}]", found)


def is_tag(tag: str) -> bool:
    """Tells whether a text may be a tag."""
    return 1 <= len(tag) <= LONGEST_TAG and tag.isprintable() and tag == tag.strip()


def check_mask(paths: Sequence[str]) -> None:
    """Refuses an empty mask, and one that names what never changes.

    Raises:
        ServiceError: `INVALID_FIELD` with all wrong paths.
    """
    known = ", ".join(f"`{path}`" for path in CHANGEABLE)
    wrong = [path for path in paths if path not in CHANGEABLE]
    violations = [
        FieldViolation("update_mask", f"names `{path[:80]}`, which cannot be changed; give some of {known}")
        for path in wrong
    ]
    if not paths:
        violations = [FieldViolation("update_mask", f"is empty; give some of {known}")]
    if violations:
        raise invalid_fields(violations[:20])


def set_description(connection: Connection, name: DatasetName, message: datasets_pb2.Dataset) -> Dataset:
    """Notes what a new data set was created with.

    Raises:
        ServiceError: `NOT_FOUND`.
    """
    _write_tags(connection, name, message.tags)
    _write(connection, name, metadata_json=json.dumps(dict(message.metadata), sort_keys=True))
    return get_dataset(connection, name)


def update_dataset(
    connection: Connection, name: DatasetName, message: datasets_pb2.Dataset, paths: Sequence[str], time_us: int
) -> Dataset:
    """Changes what a mask names.

    Args:
        connection: To write with.
        name: The data set.
        message: Checked; its etag, unless empty, must be that of now.
        paths: Checked.
        time_us: When.

    Raises:
        ServiceError: `NOT_FOUND`, `ETAG_MISMATCH`.
    """
    dataset = get_dataset(connection, name)
    if message.etag and message.etag != dataset.etag:
        raise ServiceError(
            Reason.ETAG_MISMATCH,
            f"{name} has the etag {dataset.etag}, not {message.etag[:80]}: somebody changed it meanwhile",
            metadata={"name": str(name), "etag": dataset.etag},
        )
    values: dict[str, Any] = {"revision": dataset.revision + 1, "update_time_us": time_us}
    if "description" in paths:
        values["description"] = message.description
    if "metadata" in paths:
        values["metadata_json"] = json.dumps(dict(message.metadata), sort_keys=True)
    if "tags" in paths:
        _write_tags(connection, name, message.tags)
    _write(connection, name, **values)
    return get_dataset(connection, name)


def get_dataset(connection: Connection, name: DatasetName) -> Dataset:
    """Returns a data set.

    Raises:
        ServiceError: `NOT_FOUND`.
    """
    row = connection.execute(select(DATASETS).where(_is(name), DATASETS.c.delete_time_us.is_(None))).one_or_none()
    if row is None:
        raise not_found("data set", name)
    return _datasets(connection, [row])[0]


def list_datasets(connection: Connection, project: str, wanted: DatasetFilter, page: Page) -> list[Dataset]:
    """Returns a page's data sets by id, and one more when there are more."""
    table = DATASETS
    statement = select(table).where(table.c.project == project, table.c.delete_time_us.is_(None))
    for tag in wanted.tags:
        with_tag = select(DATASET_TAGS.c.dataset).where(DATASET_TAGS.c.project == project, DATASET_TAGS.c.tag == tag)
        statement = statement.where(table.c.id.in_(with_tag))
    if wanted.shape is not None:
        newest = and_(
            DATASET_VERSIONS.c.project == table.c.project,
            DATASET_VERSIONS.c.dataset == table.c.id,
            DATASET_VERSIONS.c.version == table.c.latest,
        )
        statement = statement.join(DATASET_VERSIONS, newest).where(DATASET_VERSIONS.c.shape == wanted.shape.value)
    if wanted.query:
        text = wanted.query.lower()
        statement = statement.where(
            or_(
                table.c.id.contains(text, autoescape=True),
                func.lower(table.c.description).contains(text, autoescape=True),
            )
        )
    statement = statement.where(table.c.id > (page.after or "")).order_by(table.c.id).limit(page.size + 1)
    return _datasets(connection, list(connection.execute(statement)))


def _is(name: DatasetName) -> Any:
    return and_(DATASETS.c.project == name.project, DATASETS.c.id == name.dataset)


def _write(connection: Connection, name: DatasetName, **values: Any) -> None:
    connection.execute(update(DATASETS).where(_is(name)).values(**values))


def _write_tags(connection: Connection, name: DatasetName, tags: Sequence[str]) -> None:
    table = DATASET_TAGS
    connection.execute(delete(table).where(table.c.project == name.project, table.c.dataset == name.dataset))
    for tag in sorted(set(tags)):
        connection.execute(insert(table).values(project=name.project, dataset=name.dataset, tag=tag))


def _datasets(connection: Connection, rows: Sequence[Row[Any]]) -> list[Dataset]:
    """Makes data sets of rows of one project, with their tags."""
    tags: dict[str, list[str]] = {row.id: [] for row in rows}
    if rows:
        table = DATASET_TAGS
        statement = select(table.c.dataset, table.c.tag).where(
            table.c.project == rows[0].project, table.c.dataset.in_(list(tags))
        )
        for dataset, tag in connection.execute(statement.order_by(table.c.tag)):
            tags[dataset].append(tag)
    return [
        Dataset(
            name=DatasetName(row.project, row.id),
            description=row.description,
            tags=tuple(tags[row.id]),
            metadata=json.loads(row.metadata_json),
            create_time_us=row.create_time_us,
            creator=row.creator,
            latest=row.latest,
            revision=row.revision,
            update_time_us=row.update_time_us,
        )
        for row in rows
    ]


def filter_of(message: datasets_pb2.DatasetFilter) -> DatasetFilter:
    """Reads the filter of a list.

    Raises:
        ServiceError: `INVALID_FIELD`.
    """
    violations = []
    if len(message.query) > LONGEST_TEXT:
        found = f"has {len(message.query)} characters; at most {LONGEST_TEXT} are taken"
        violations.append(FieldViolation("filter.query", found))
    if len(message.tags) > MOST_TAGS:
        violations.append(
            FieldViolation("filter.tags", f"has {len(message.tags)} entries; at most {MOST_TAGS} are taken")
        )
    names = datasets_pb2.RowShape.DESCRIPTOR.values_by_number
    if message.shape not in names:
        violations.append(FieldViolation("filter.shape", f"is {message.shape}, which is no known shape"))
    if violations:
        raise invalid_fields(violations)
    word = names[message.shape].name.removeprefix("ROW_SHAPE_")
    shape = RowShape(word) if message.shape else None
    return DatasetFilter(tags=tuple(sorted(set(message.tags))), shape=shape, query=message.query)
