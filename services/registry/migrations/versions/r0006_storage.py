"""Blobs: retention and collection."""

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Changes nothing yet."""
