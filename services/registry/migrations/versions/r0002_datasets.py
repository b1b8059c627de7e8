"""Data sets: shapes, statistics, split."""

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Changes nothing yet."""
