"""The table that says where content was fetched from."""

from sqlalchemy import BigInteger, Column, String, Table

from services.registry.tables.metadata import METADATA

# By the digest of a manifest, not by version number: written before the version is made.
SOURCES = Table(
    "sources",
    METADATA,
    Column("parent", String(255), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("uri", String, nullable=False),
    Column("revision", String, nullable=False),
    Column("time_us", BigInteger, nullable=False),
)
