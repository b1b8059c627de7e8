"""Every submit asks for the newest runs of a kind and of its data: they are found without reading all runs."""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Adds the indices."""
    op.create_index("measured_runs_newest", "measured_runs", ["device", "method", "compute", "job"])
    op.create_index("measured_runs_data", "measured_runs", ["train_digest", "job"])
