"""Tables of what is kept, for how long, and what was deleted by whom. Names are whole resource names."""

from sqlalchemy import BigInteger, Column, Index, String, Table

from services.registry.tables.metadata import METADATA

PINS = Table(
    "pins",
    METADATA,
    Column("name", String(300), primary_key=True),
    Column("reason", String(200), primary_key=True),
    Column("actor", String, nullable=False),
    Column("time_us", BigInteger, nullable=False),
)

# What jobs and deployments need. Each service looks after its own: made before the thing is, removed after it is gone.
HOLDS = Table(
    "holds",
    METADATA,
    Column("owner", String(64), primary_key=True),
    Column("holder", String(300), primary_key=True),
    Column("version", String(300), primary_key=True),
    Column("time_us", BigInteger, nullable=False),
    Index("holds_by_version", "version"),
    Index("holds_by_holder", "holder"),
)

EXPIRATIONS = Table(
    "expirations",
    METADATA,
    Column("name", String(300), primary_key=True),
    Column("expire_time_us", BigInteger, nullable=False),
    Column("actor", String, nullable=False),
    Index("expirations_by_time", "expire_time_us"),
)

# Only ever added to.
DELETIONS = Table(
    "deletions",
    METADATA,
    Column("name", String(300), primary_key=True),
    Column("time_us", BigInteger, primary_key=True),
    Column("actor", String, nullable=False),
    Column("reason", String, nullable=False),
)

RETENTION_POLICIES = Table(
    "retention_policies",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("upload_kept_s", BigInteger, nullable=False),
    Column("update_time_us", BigInteger, nullable=False),
)
