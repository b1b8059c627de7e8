"""Where the content of versions was fetched from."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "sources",
        sa.Column("parent", sa.String(255), primary_key=True),
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("uri", sa.String, nullable=False),
        sa.Column("revision", sa.String, nullable=False),
        sa.Column("time_us", sa.BigInteger, nullable=False),
    )
