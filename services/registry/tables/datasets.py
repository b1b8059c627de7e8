"""Tables of data sets and their versions."""

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Integer, LargeBinary, String, Table, UniqueConstraint

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
    Column("delete_time_us", BigInteger),
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
    # Set once it is deleted: the row stays, so that its number is never given again.
    Column("delete_time_us", BigInteger),
    ForeignKeyConstraint(["project", "dataset"], ["datasets.project", "datasets.id"]),
    UniqueConstraint("project", "dataset", "digest", name="dataset_versions_by_content"),
)
