"""By what name the registry knows what these deployments hold there."""

from alembic import op

from services.grpckit import identity

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Makes the table."""
    op.create_table(identity.TABLE_NAME, *identity.columns())
