"""Lists are searched by class and by sweep too: the index that answers searches alone has both."""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Makes the index anew."""
    searched = ("job_id", "creator", "base_version", "train_version", "output_model", "create_ms", "priority", "trial")
    op.drop_index("jobs_by_search", "jobs")
    op.create_index("jobs_by_search", "jobs", ["project", "number", *searched])
