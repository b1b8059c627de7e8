"""Budgets of projects may have a period: energy by hour, and when a paused job goes on by itself."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Adds the columns; energy of the hours before counts as none."""
    op.add_column("usage_hours", sa.Column("joules", sa.Double, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("goes_on_ms", sa.BigInteger))
