"""Tables of lineage: what was made from what, and which data was revoked.

Things are numbered once, so that a walk over a hundred thousand of them compares integers and not names.
"""

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, String, Table

from services.registry.tables.metadata import METADATA

# SQLite numbers only a column of type INTEGER by itself.
_NUMBER = BigInteger().with_variant(Integer, "sqlite")

LINEAGE_NODES = Table(
    "lineage_nodes",
    METADATA,
    Column("id", _NUMBER, primary_key=True, autoincrement=True),
    # Empty for what lies outside, such as the address of an import.
    Column("project", String(63), nullable=False),
    Column("name", String, nullable=False, unique=True),
    Column("kind", String(32), nullable=False),
    # The data set or model of a version, by name; empty for all else.
    Column("collection", String, nullable=False),
    # Bases below it, on the longest chain.
    Column("depth", Integer, nullable=False),
    Index("lineage_nodes_by_collection", "collection"),
)

LINEAGE_EDGES = Table(
    "lineage_edges",
    METADATA,
    Column("child", _NUMBER, ForeignKey("lineage_nodes.id"), primary_key=True),
    Column("parent", _NUMBER, ForeignKey("lineage_nodes.id"), primary_key=True),
    Column("role", String(16), primary_key=True),
    # With all columns, so that a walk downwards reads the index alone.
    Index("lineage_edges_by_parent", "parent", "child", "role"),
)

# Only ever added to: the newest row of a name says whether it is revoked.
REVOCATIONS = Table(
    "revocations",
    METADATA,
    Column("sequence", _NUMBER, primary_key=True, autoincrement=True),
    Column("project", String(63), nullable=False),
    # A data set, or one version of it.
    Column("name", String, nullable=False),
    Column("is_revoked", Boolean, nullable=False),
    Column("actor", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("time_us", BigInteger, nullable=False),
    Index("revocations_by_name", "name", "sequence"),
    Index("revocations_by_project", "project", "sequence"),
)
