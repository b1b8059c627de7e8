"""What a job is predicted to need on an accelerator and on the host beside it; of earlier jobs one figure is known."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Adds the columns."""
    op.add_column("jobs", sa.Column("device_peak_bytes", sa.BigInteger))
    op.add_column("jobs", sa.Column("beside_bytes", sa.BigInteger))
