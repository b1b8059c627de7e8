"""Why attempts ended early, for the ledger of work lost and saved, and jobs that wait for others."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Adds the column and the table; attempts that ended before are in no ledger."""
    op.add_column("attempts", sa.Column("cause", sa.String(16), nullable=False, server_default=""))
    op.create_table(
        "job_dependencies",
        sa.Column("job", _NUMBER, sa.ForeignKey("jobs.number"), primary_key=True, autoincrement=False),
        sa.Column("depends_on", _NUMBER, sa.ForeignKey("jobs.number"), primary_key=True, autoincrement=False),
    )
