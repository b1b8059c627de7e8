"""Tables of models and their versions."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
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
    # Set for imports only: two jobs may well produce the same bytes, and each has its own version. The digest; for an
    # adapter a digest over it and that of its base, since the same adapter on another base is another model.
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

# What versions, and models themselves (version 0), are found by. Narrow on purpose: a filter or a sort reads these rows
# only, never the records beside them. A model has a row 0 once its own facts were set.
MODEL_FACTS = Table(
    "model_facts",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("task", String(63), nullable=False),
    Column("framework", String(63), nullable=False),
    Column("architecture", String(200), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("parameters", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("create_time_us", BigInteger, nullable=False),
    Column("license", String(200), nullable=False),
    Column("domain", String(200), nullable=False),
    Column("description", String, nullable=False),
    # Tags and metadata as a serialised `tuneforge.v1.ModelVersion` with these fields alone.
    Column("labels", LargeBinary, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("update_time_us", BigInteger, nullable=False),
)

# The same tags and metadata once more, one row each, to be filtered by; a tag is a key without value.
MODEL_LABELS = Table(
    "model_labels",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("is_tag", Boolean, primary_key=True),
    Column("label", String(63), primary_key=True),
    Column("value", String, nullable=False),
    Index("model_labels_by_label", "project", "is_tag", "label"),
)

# Final figures of versions, to be sorted and gated by; the version's record has them too.
MODEL_METRICS = Table(
    "model_metrics",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("value", Double, nullable=False),
)

# Only ever added to.
VALIDATION_REPORTS = Table(
    "validation_reports",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("validation", Integer, primary_key=True),
    Column("passed", Boolean, nullable=False),
    # A serialised `tuneforge.v1.ValidationReport` without what the columns beside it say.
    Column("record", LargeBinary, nullable=False),
    Column("create_time_us", BigInteger, nullable=False),
    Column("creator", String, nullable=False),
    # Of the creator at that time; see `reporters.py`.
    Column("roles", String, nullable=False),
    ForeignKeyConstraint(
        ["project", "model", "version"],
        ["model_versions.project", "model_versions.model", "model_versions.version"],
    ),
)
