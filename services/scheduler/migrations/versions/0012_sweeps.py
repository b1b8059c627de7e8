"""Sweeps and their trials, and for each job the trial that it is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Adds two tables and a column; jobs that are there are no trials."""
    op.add_column("jobs", sa.Column("trial", sa.Text))
    op.create_table(
        "sweeps",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("project", sa.String(63), nullable=False),
        sa.Column("sweep_id", sa.String(63), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("creator", sa.String(256), nullable=False),
        sa.Column("labels", sa.Text, nullable=False),
        sa.Column("spec", sa.LargeBinary, nullable=False),
        sa.Column("plan", sa.LargeBinary, nullable=False),
        sa.Column("combinations", sa.BigInteger, nullable=False),
        sa.Column("cost", sa.LargeBinary, nullable=False),
        sa.Column("versions", sa.Text, nullable=False),
        sa.Column("rounds_done", sa.Integer, nullable=False),
        sa.Column("failure", sa.LargeBinary),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("create_ms", sa.BigInteger, nullable=False),
        sa.Column("end_ms", sa.BigInteger),
        sa.UniqueConstraint("project", "sweep_id", name="sweeps_name"),
        sqlite_autoincrement=True,
    )
    op.create_index("sweeps_by_project", "sweeps", ["project", "number"])
    op.create_index("sweeps_by_state", "sweeps", ["state"])
    op.create_table(
        "trials",
        sa.Column("sweep", _NUMBER, sa.ForeignKey("sweeps.number"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("point", sa.Text, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("job", _NUMBER, sa.ForeignKey("jobs.number")),
        sa.Column("value", sa.Double),
        sa.Column("reports", sa.Text, nullable=False),
        sa.Column("rungs", sa.Integer, nullable=False),
        sa.Column("stop_step", sa.BigInteger, nullable=False),
        sa.Column("is_paused", sa.Boolean, nullable=False),
        sa.Column("read_seq", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("create_ms", sa.BigInteger, nullable=False),
        sa.Column("end_ms", sa.BigInteger),
        sa.PrimaryKeyConstraint("sweep", "number"),
        sa.UniqueConstraint("sweep", "digest", name="trials_digest"),
    )
    op.create_index("trials_by_job", "trials", ["job"])
