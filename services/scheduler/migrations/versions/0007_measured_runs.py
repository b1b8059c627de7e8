"""What finished runs were measured at, and what each job was predicted to take."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Adds the column and the table; runs that are over already have left no prediction to compare with."""
    op.add_column("jobs", sa.Column("resource_estimate", sa.LargeBinary))
    op.create_table(
        "measured_runs",
        sa.Column("job", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.ForeignKey("jobs.number")),
        sa.Column("family", sa.String(128), nullable=False),
        sa.Column("method", sa.String(16), nullable=False),
        sa.Column("compute", sa.String(16), nullable=False),
        sa.Column("device", sa.String(128), nullable=False),
        sa.Column("train_digest", sa.String(64), nullable=False),
        sa.Column("row_tokens", sa.Double, nullable=False),
        sa.Column("arithmetic_bytes", sa.BigInteger, nullable=False),
        sa.Column("real_bytes", sa.BigInteger, nullable=False),
        sa.Column("flops_per_token", sa.Double, nullable=False),
        sa.Column("tokens", sa.Double, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("joules", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("job"),
    )
    op.create_index("measured_runs_kind", "measured_runs", ["device", "method", "compute", "family"])
