"""Promises of when jobs start and end, and what came."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Adds the table; what was promised before was not written down."""
    op.create_table(
        "forecasts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("job", sa.BigInteger),
        sa.Column("project", sa.String(63), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("event", sa.String(8), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("make_ms", sa.BigInteger, nullable=False),
        sa.Column("expected_ms", sa.BigInteger, nullable=False),
        sa.Column("earliest_ms", sa.BigInteger, nullable=False),
        sa.Column("latest_ms", sa.BigInteger, nullable=False),
        sa.Column("told_expected_ms", sa.BigInteger, nullable=False),
        sa.Column("told_earliest_ms", sa.BigInteger, nullable=False),
        sa.Column("told_latest_ms", sa.BigInteger, nullable=False),
        sa.Column("real_ms", sa.BigInteger),
        sa.Column("outcome", sa.String(8), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("forecasts_by_job", "forecasts", ["job"])
    op.create_index("forecasts_by_outcome", "forecasts", ["outcome", "event"])
