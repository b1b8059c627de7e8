"""One order of the changes of all jobs, logs that can be thinned out, and several processes on one database."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_NUMBERS = ("change_seq", "previous_change", "first_change", "log_bytes", "compacted_seq", "removed_events")


def upgrade() -> None:
    """Adds the columns; the jobs that are there count as made and not changed since, in the order of their numbers."""
    for name in _NUMBERS:
        op.add_column("jobs", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("compacted_head", sa.LargeBinary))
    op.add_column("jobs", sa.Column("compact_ms", sa.BigInteger))
    op.execute(
        "UPDATE jobs SET change_seq = number, first_change = number, log_bytes ="
        " (SELECT coalesce(sum(length(chunks.payload)), 0) FROM chunks WHERE chunks.job = jobs.number)"
    )
    op.create_index("jobs_by_change", "jobs", ["change_seq"])
    op.add_column("nodes", sa.Column("heard_by", sa.String(32), nullable=False, server_default=""))
    op.add_column("nodes", sa.Column("held", sa.LargeBinary))
    op.create_table(
        "leaders",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("holder", sa.String(32), nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
    )
