"""The registry's tables, as the newest migration leaves them; a test holds the two against each other."""

from pathlib import Path

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

from services.grpckit import request_memory

SCHEMA_HEAD = "0001"
MIGRATIONS = Path(__file__).parent / "migrations"

METADATA = MetaData()

request_memory.table(METADATA)

DATASETS = Table(
    "datasets",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("id", String(63), primary_key=True),
    Column("description", String, nullable=False),
    Column("create_time_us", BigInteger, nullable=False),
    Column("creator", String, nullable=False),
    Column("latest", Integer, nullable=False),
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
    ForeignKeyConstraint(["project", "dataset"], ["datasets.project", "datasets.id"]),
    UniqueConstraint("project", "dataset", "digest", name="dataset_versions_by_content"),
)

MODELS = Table(
    "models",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("id", String(63), primary_key=True),
    Column("description", String, nullable=False),
    Column("create_time_us", BigInteger, nullable=False),
    Column("creator", String, nullable=False),
    Column("latest", Integer, nullable=False),
)

MODEL_VERSIONS = Table(
    "model_versions",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    # Set for imports only: two jobs may well produce the same bytes, and each has its own version.
    Column("import_digest", String(64)),
    # Null for imports; unique for ever, which is what makes a publication happen once.
    Column("job", String),
    Column("base_version", String),
    Column("dataset_version", String),
    Column("record", LargeBinary, nullable=False),
    Column("tensors", LargeBinary, nullable=False),
    Column("create_time_us", BigInteger, nullable=False),
    Column("creator", String, nullable=False),
    ForeignKeyConstraint(["project", "model"], ["models.project", "models.id"]),
    UniqueConstraint("project", "model", "import_digest", name="model_versions_by_content"),
    UniqueConstraint("job", name="model_versions_by_job"),
    Index("model_versions_by_digest", "project", "model", "digest"),
    Index("model_versions_by_base", "base_version"),
    Index("model_versions_by_dataset", "dataset_version"),
)

ALIASES = Table(
    "aliases",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("alias", String(63), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("update_time_us", BigInteger, nullable=False),
    ForeignKeyConstraint(
        ["project", "model", "version"],
        ["model_versions.project", "model_versions.model", "model_versions.version"],
    ),
)

# Only ever added to: the store has no statement that changes or deletes a row of it.
ALIAS_CHANGES = Table(
    "alias_changes",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("alias", String(63), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("from_version", Integer, nullable=False),
    Column("to_version", Integer, nullable=False),
    Column("actor", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("time_us", BigInteger, nullable=False),
    ForeignKeyConstraint(["project", "model", "alias"], ["aliases.project", "aliases.model", "aliases.alias"]),
)

# Which project may see which blob; the bytes themselves are shared between projects.
BLOBS = Table(
    "blobs",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("create_time_us", BigInteger, nullable=False),
)
