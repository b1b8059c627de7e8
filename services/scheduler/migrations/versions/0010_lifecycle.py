"""What the life of a job needs: budgets of faults, reruns, removal, reuse of results, and what lists filter by."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Adds the columns; jobs that are there keep the scheduler's budgets, and their labels are copied for lists."""
    for column in (
        sa.Column("retry", sa.LargeBinary),
        sa.Column("user_faults", sa.Integer, nullable=False, server_default="0"),
        sa.Column("fault_signature", sa.Text),
        sa.Column("handled", sa.Integer, nullable=False, server_default="0"),
        sa.Column("rerun_of", sa.Text),
        sa.Column("training_digest", sa.String(64)),
        sa.Column("reused_from", sa.Text),
        sa.Column("ttl_ms", sa.BigInteger),
        sa.Column("expire_ms", sa.BigInteger),
        sa.Column("removal", sa.String(8)),
    ):
        op.add_column("jobs", column)
    op.add_column("attempts", sa.Column("fault_budget", sa.String(16), nullable=False, server_default=""))
    labels = op.create_table(
        "job_labels",
        sa.Column("project", sa.String(63), nullable=False),
        sa.Column("key", sa.String(63), nullable=False),
        sa.Column("value", sa.String(63), nullable=False),
        sa.Column("job", _NUMBER, sa.ForeignKey("jobs.number"), nullable=False),
        sa.PrimaryKeyConstraint("project", "key", "value", "job"),
    )
    old = sa.table("jobs", sa.column("number"), sa.column("project"), sa.column("labels"))
    rows = op.get_bind().execute(sa.select(old.c.number, old.c.project, old.c.labels)).all()
    values = [
        {"project": row.project, "key": key, "value": value, "job": row.number}
        for row in rows
        for key, value in json.loads(row.labels).items()
    ]
    if values:
        op.bulk_insert(labels, values)
    op.create_index("jobs_by_project_state", "jobs", ["project", "state", "number"])
    op.create_index("jobs_by_end", "jobs", ["project", "end_ms", "number"])
    searched = ["job_id", "creator", "base_version", "train_version", "output_model", "create_ms"]
    op.create_index("jobs_by_search", "jobs", ["project", "number", *searched])
    op.create_index("jobs_by_training", "jobs", ["project", "training_digest"])
    op.create_index("jobs_by_expiry", "jobs", ["expire_ms"])
    op.create_index("jobs_by_removal", "jobs", ["removal"])
