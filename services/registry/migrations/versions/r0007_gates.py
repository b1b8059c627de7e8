"""Gates, evaluations, approvals and promotions."""

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Changes nothing yet."""
