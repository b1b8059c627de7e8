"""Queues of projects, what their jobs were given, and budgets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Adds tables and columns, and counts what ended attempts held; shares begin even, so that it weighs nothing."""
    op.add_column("jobs", sa.Column("attained_ms", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("joules", sa.Double, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("budget", sa.LargeBinary))
    op.add_column("attempts", sa.Column("slots", sa.Integer, nullable=False, server_default="1"))
    op.add_column("attempts", sa.Column("watts", sa.Double, nullable=False, server_default="0"))
    op.add_column("attempts", sa.Column("joules", sa.Double, nullable=False, server_default="0"))
    op.create_table(
        "queues",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("queue", sa.String(63), primary_key=True),
        sa.Column("weight", sa.Double, nullable=False),
        sa.Column("max_devices", sa.Integer, nullable=False),
        sa.Column("max_jobs", sa.Integer, nullable=False),
        sa.Column("max_waiting_jobs", sa.Integer, nullable=False),
        sa.Column("window_device_ms", sa.BigInteger, nullable=False),
        sa.Column("window_hours", sa.Integer, nullable=False),
        sa.Column("guaranteed_devices", sa.Integer, nullable=False),
        sa.Column("budget", sa.LargeBinary),
        sa.Column("is_paused", sa.Boolean, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("update_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "usage",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("decayed_ms", sa.Double, nullable=False),
        sa.Column("as_of_ms", sa.BigInteger, nullable=False),
        sa.Column("device_ms", sa.BigInteger, nullable=False),
        sa.Column("joules", sa.Double, nullable=False),
    )
    op.create_table(
        "usage_hours",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("device_ms", sa.BigInteger, nullable=False),
    )
    op.execute(
        "UPDATE jobs SET attained_ms = COALESCE((SELECT SUM(CASE WHEN attempts.end_ms > attempts.create_ms "
        "THEN attempts.end_ms - attempts.create_ms ELSE 0 END) FROM attempts WHERE attempts.job = jobs.number "
        "AND attempts.end_ms IS NOT NULL), 0)"
    )
    op.execute(
        "INSERT INTO usage (project, decayed_ms, as_of_ms, device_ms, joules) "
        "SELECT project, 0, 0, SUM(attained_ms), 0 FROM jobs GROUP BY project"
    )
