"""Tables of signatures: the public keys that ever signed, and the signature of each version."""

from sqlalchemy import BigInteger, Column, LargeBinary, String, Table, Text

from services.registry.tables.metadata import METADATA

SIGNING_KEYS = Table(
    "signing_keys",
    METADATA,
    Column("key_id", String(64), primary_key=True),
    Column("public_key", Text, nullable=False),
    Column("create_time_us", BigInteger, nullable=False),
    # The key before it and what that one signed to say so; empty for the first key.
    Column("endorsed_by", String(64), nullable=False),
    Column("endorsement", LargeBinary, nullable=False),
)

SIGNATURES = Table(
    "signatures",
    METADATA,
    Column("version", String, primary_key=True),
    Column("key_id", String(64), nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("time_us", BigInteger, nullable=False),
)
