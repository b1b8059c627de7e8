"""Deployments and remembered requests."""

import sqlalchemy as sa
from alembic import op

from services.grpckit import request_memory

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes every table."""
    op.create_table(request_memory.TABLE_NAME, *request_memory.columns())
    op.create_table(
        "deployments",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("layers", sa.String, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("template_sha256", sa.String(64), nullable=False),
        sa.Column("failure", sa.String),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.Column("creator", sa.String, nullable=False),
    )
