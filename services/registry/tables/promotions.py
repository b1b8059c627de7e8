"""Tables of promotions and of the log of their states."""

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Index, Integer, String, Table

from services.registry.tables.metadata import METADATA

PROMOTIONS = Table(
    "promotions",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("path", String(400), nullable=False),
    Column("destination", String(600), nullable=False),
    Column("state", String(16), nullable=False),
    # A list, as JSON.
    Column("patterns", String, nullable=False),
    Column("num_files", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("message", String, nullable=False),
    Column("actor", String, nullable=False),
    Column("create_time_us", BigInteger, nullable=False),
    Column("update_time_us", BigInteger, nullable=False),
    ForeignKeyConstraint(
        ["project", "model", "version"],
        ["model_versions.project", "model_versions.model", "model_versions.version"],
        name="promotions_version",
    ),
    Index("promotions_by_destination", "destination"),
    Index("promotions_by_state", "state"),
)

# Only ever added to.
PROMOTION_CHANGES = Table(
    "promotion_changes",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("path", String(400), nullable=False),
    Column("actor", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("message", String, nullable=False),
    Column("time_us", BigInteger, nullable=False),
    ForeignKeyConstraint(
        ["project", "model", "version"],
        ["promotions.project", "promotions.model", "promotions.version"],
        name="promotion_changes_promotion",
    ),
)
