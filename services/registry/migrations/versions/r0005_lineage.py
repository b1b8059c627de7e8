"""Lineage as a graph, signatures, revocation."""

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Changes nothing yet."""
