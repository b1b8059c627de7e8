"""Blobs by size: an upload without a digest is asked for it only where the project has a blob as large."""

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Makes the index."""
    op.create_index("blobs_by_size", "blobs", ["project", "size_bytes"])
