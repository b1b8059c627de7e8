"""Tables of models and their versions."""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
)

from services.registry.tables.metadata import METADATA

MODELS = Table(
    "models",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("id", String(63), primary_key=True),
    Column("description", String, nullable=False),
    Column("create_time_us", BigInteger, nullable=False),
    Column("creator", String, nullable=False),
    Column("latest", Integer, nullable=False),
    Column("delete_time_us", BigInteger),
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
    # Set once it is deleted: the row stays, so that its number is never given again.
    Column("delete_time_us", BigInteger),
    ForeignKeyConstraint(["project", "model"], ["models.project", "models.id"]),
    UniqueConstraint("project", "model", "import_digest", name="model_versions_by_content"),
    UniqueConstraint("job", name="model_versions_by_job"),
    Index("model_versions_by_digest", "project", "model", "digest"),
    Index("model_versions_by_base", "base_version"),
    Index("model_versions_by_dataset", "dataset_version"),
)
