"""Tables of aliases and of the log of their moves."""

from sqlalchemy import (
    BigInteger,
    Boolean,
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

# What each alias names now. A deleted one keeps its row, so that its moves are counted on.
ALIASES = Table(
    "aliases",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("alias", String(63), primary_key=True),
    # Null: deleted.
    Column("version", Integer),
    Column("sequence", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("update_time_us", BigInteger, nullable=False),
    ForeignKeyConstraint(
        ["project", "model", "version"],
        ["model_versions.project", "model_versions.model", "model_versions.version"],
        name="aliases_version",
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
    # Number of the move among all of the project, by which watches go on.
    Column("position", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False),
    # 0: it named nothing.
    Column("from_version", Integer, nullable=False),
    # 0: it names nothing from then on.
    Column("to_version", Integer, nullable=False),
    # Of a rollback: the move whose version it brought back; else 0.
    Column("restored_sequence", BigInteger, nullable=False),
    Column("actor", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("time_us", BigInteger, nullable=False),
    Column("is_forced", Boolean, nullable=False),
    # A serialised `GateReport`; empty where no policy fits the alias.
    Column("gates", LargeBinary, nullable=False),
    ForeignKeyConstraint(
        ["project", "model", "alias"],
        ["aliases.project", "aliases.model", "aliases.alias"],
        name="alias_changes_alias",
    ),
    UniqueConstraint("project", "position", name="alias_changes_by_position"),
    Index("alias_changes_by_time", "project", "model", "alias", "time_us"),
)

# One row a project: the last move's number and time. Taking the next ones locks it, so moves become visible in their
# order also where a database has several writers.
ALIAS_CLOCKS = Table(
    "alias_clocks",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("time_us", BigInteger, nullable=False),
)
