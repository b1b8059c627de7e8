"""Checkpoints in the blob store, what the registry keeps for them, and jobs that begin from one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Adds the columns and the table; checkpoints that are there are on their nodes only."""
    op.add_column("jobs", sa.Column("best_step", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("origin_name", sa.Text))
    op.add_column("jobs", sa.Column("origin_manifest", sa.LargeBinary))
    op.add_column("jobs", sa.Column("verifies", sa.LargeBinary))
    op.add_column("checkpoints", sa.Column("manifest", sa.LargeBinary))
    op.add_column("checkpoints", sa.Column("durable_ms", sa.BigInteger))
    op.add_column("checkpoints", sa.Column("is_pinned", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_table(
        "blob_holds",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("manifest", sa.LargeBinary),
    )
