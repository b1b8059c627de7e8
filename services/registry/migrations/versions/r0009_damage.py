"""Which stored contents were found damaged, so that they are taken anew."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Adds the column."""
    op.add_column("blob_places", sa.Column("damage_time_us", sa.BigInteger))
