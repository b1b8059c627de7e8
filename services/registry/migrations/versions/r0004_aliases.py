"""Aliases: the whole log of their moves."""

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Changes nothing yet."""
