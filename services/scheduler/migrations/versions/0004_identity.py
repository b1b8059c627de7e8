"""By what name the registry knows what this scheduler's jobs hold there."""

from alembic import op

from services.grpckit import identity

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Makes the table."""
    op.create_table(identity.TABLE_NAME, *identity.columns())
