"""The head of the hash chain over each job's events; jobs that are there get that of the events they have."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tuneforge.records import event_bytes, first_head, next_head
from tuneforge.v1 import events_pb2

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds the column and computes it."""
    op.add_column("jobs", sa.Column("record_head", sa.LargeBinary))
    bind = op.get_bind()
    jobs = sa.table("jobs", *map(sa.column, ("number", "project", "job_id", "record_head")))
    chunks = sa.table("chunks", *map(sa.column, ("job", "first_seq", "payload")))
    for job in bind.execute(sa.select(jobs.c.number, jobs.c.project, jobs.c.job_id)).all():
        head = first_head(f"projects/{job.project}/jobs/{job.job_id}")
        log = sa.select(chunks.c.payload).where(chunks.c.job == job.number).order_by(chunks.c.first_seq)
        for payload in bind.execute(log).scalars():
            for event in events_pb2.EventBatch.FromString(bytes(payload)).events:
                head = next_head(head, event_bytes(event))
        bind.execute(jobs.update().where(jobs.c.number == job.number).values(record_head=head))
