"""Who leads is the name of a session: what was kept of it in tables is not read any more."""

from __future__ import annotations

from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Drops the table and the columns."""
    op.drop_table("leaders")
    op.drop_column("nodes", "heard_by")
    op.drop_column("nodes", "held")
