"""Tables of aliases and of the log of their moves."""

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Integer, String, Table

from services.registry.tables.metadata import METADATA

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
