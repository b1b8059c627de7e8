"""Tables of data sets and their versions."""

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Index, Integer, LargeBinary, String, Table, text

from services.registry.tables.metadata import METADATA

DATASETS = Table(
    "datasets",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("id", String(63), primary_key=True),
    Column("description", String, nullable=False),
    Column("create_time_us", BigInteger, nullable=False),
    Column("creator", String, nullable=False),
    Column("latest", Integer, nullable=False),
    Column("metadata_json", String, nullable=False, server_default="{}"),
    # Grows by one with each change.
    Column("revision", Integer, nullable=False, server_default="0"),
    Column("update_time_us", BigInteger),
    Column("delete_time_us", BigInteger),
)

DATASET_TAGS = Table(
    "dataset_tags",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("dataset", String(63), primary_key=True),
    Column("tag", String(63), primary_key=True),
    ForeignKeyConstraint(["project", "dataset"], ["datasets.project", "datasets.id"]),
)

DATASET_VERSIONS = Table(
    "dataset_versions",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("dataset", String(63), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("shape", String(32), nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("manifest", LargeBinary, nullable=False),
    Column("create_time_us", BigInteger, nullable=False),
    Column("creator", String, nullable=False),
    # How rows are divided, in one way; empty: not.
    Column("split", String(64), nullable=False, server_default=""),
    # The parts of a `DatasetVersion` message that have no column: format, split, statistics, remarks.
    Column("record", LargeBinary, nullable=False, server_default=text("''")),
    # Set once it is deleted: the row stays, so that its number is never given again.
    Column("delete_time_us", BigInteger),
    ForeignKeyConstraint(["project", "dataset"], ["datasets.project", "datasets.id"]),
    Index("dataset_versions_with_content", "project", "dataset", "digest", "split"),
)
