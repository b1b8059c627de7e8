"""What jobs and deployments of other services need."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "holds",
        sa.Column("owner", sa.String(64), primary_key=True),
        sa.Column("holder", sa.String(300), primary_key=True),
        sa.Column("version", sa.String(300), primary_key=True),
        sa.Column("time_us", sa.BigInteger, nullable=False),
    )
    op.create_index("holds_by_version", "holds", ["version"])
    op.create_index("holds_by_holder", "holds", ["holder"])
