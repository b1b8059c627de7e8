"""When and where jobs may run, what their devices were used for, and nodes that are drained."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Adds the columns; jobs of earlier releases are of the middle class and wait since they were created."""
    for name in ("priority", "predicted_ms", "queued_ms", "lost_preempted_ms", "lost_faults_ms", "saved_ms"):
        op.add_column("jobs", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("preemptions", sa.Integer, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("is_preemptible", sa.Boolean, nullable=False, server_default=sa.true()))
    op.add_column("jobs", sa.Column("is_late", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("jobs", sa.Column("start_after_ms", sa.BigInteger))
    op.add_column("jobs", sa.Column("deadline_ms", sa.BigInteger))
    op.add_column("jobs", sa.Column("scheduling", sa.LargeBinary))
    op.add_column("jobs", sa.Column("exclusions", sa.Text, nullable=False, server_default=""))
    op.execute("UPDATE jobs SET queued_ms = create_ms")
    op.add_column("attempts", sa.Column("first_step_ms", sa.BigInteger))
    op.add_column("nodes", sa.Column("drain_ms", sa.BigInteger))
    op.add_column("nodes", sa.Column("drain_deadline_ms", sa.BigInteger))
    op.add_column("nodes", sa.Column("drain_reason", sa.Text))
    op.add_column("nodes", sa.Column("drain_actor", sa.String(256)))
