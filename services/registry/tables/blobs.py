"""Tables of blobs: who may see them, where their bytes lie, what uses them, and what is on its way in or out."""

from sqlalchemy import BigInteger, Column, Index, String, Table, UniqueConstraint

from services.registry.tables.metadata import METADATA

# Which project may see which blob; the bytes themselves are shared between projects.
BLOBS = Table(
    "blobs",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("create_time_us", BigInteger, nullable=False),
    # When somebody last relied on it: sent it, was told that it is stored, or made a version of it.
    Column("used_time_us", BigInteger, nullable=False, server_default="0"),
    Index("blobs_by_size", "project", "size_bytes"),
)

# Where the verified bytes of a digest lie. A place is used once: bytes that come again get another one.
BLOB_PLACES = Table(
    "blob_places",
    METADATA,
    Column("sha256", String(64), primary_key=True),
    Column("place", String(200), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("create_time_us", BigInteger, nullable=False),
    # When its bytes were read and were not those of the digest: the next upload takes its place. NULL: they were not.
    Column("damage_time_us", BigInteger),
    UniqueConstraint("place", name="blob_places_by_place"),
)

# What needs a blob: written in the transaction that makes the version, removed in the one that deletes it.
BLOB_USES = Table(
    "blob_uses",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("holder", String(300), primary_key=True),
    Index("blob_uses_by_holder", "holder"),
)

# Uploads by presigned URL that are not complete.
BLOB_UPLOADS = Table(
    "blob_uploads",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("place", String(200), nullable=False),
    # Of the multipart upload; empty for one that is sent whole.
    Column("upload_id", String(300), nullable=False),
    Column("part_bytes", BigInteger, nullable=False),
    Column("update_time_us", BigInteger, nullable=False),
)

# Places whose bytes are to be removed: no row of another table names them any more, and none ever will.
BLOB_TOMBSTONES = Table(
    "blob_tombstones",
    METADATA,
    Column("place", String(200), primary_key=True),
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("time_us", BigInteger, nullable=False),
)

# One row: by what name this database owns the home of its blobs. Another registry on the same bucket would take our
# contents for something left behind.
BLOB_OWNER = Table("blob_owner", METADATA, Column("owner", String(32), primary_key=True))
