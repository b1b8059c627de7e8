"""Memory that ran out lowers how many rows the next attempts of a job compute at once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Adds the limits, of jobs and of attempts."""
    for table in ("jobs", "attempts"):
        op.add_column(table, sa.Column("rows_at_once", sa.Integer, nullable=False, server_default="0"))
