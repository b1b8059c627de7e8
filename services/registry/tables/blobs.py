"""The table that says which project may see which blob."""

from sqlalchemy import BigInteger, Column, String, Table

from services.registry.tables.metadata import METADATA

# Which project may see which blob; the bytes themselves are shared between projects.
BLOBS = Table(
    "blobs",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("create_time_us", BigInteger, nullable=False),
)
