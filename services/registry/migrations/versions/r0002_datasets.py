"""Data sets: tags and metadata, formats, statistics, split.

Another split of the same files is another version, so content alone is no longer unique; versions that are there have
no split and no statistics.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds columns and a table; see `services/registry/tables/datasets.py`."""
    with op.batch_alter_table("datasets") as batch:
        batch.add_column(sa.Column("metadata_json", sa.String, nullable=False, server_default="{}"))
        batch.add_column(sa.Column("revision", sa.Integer, nullable=False, server_default="0"))
        batch.add_column(sa.Column("update_time_us", sa.BigInteger))
    op.create_table(
        "dataset_tags",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("dataset", sa.String(63), primary_key=True),
        sa.Column("tag", sa.String(63), primary_key=True),
        sa.ForeignKeyConstraint(["project", "dataset"], ["datasets.project", "datasets.id"]),
    )
    with op.batch_alter_table("dataset_versions") as batch:
        batch.drop_constraint("dataset_versions_by_content", type_="unique")
        batch.add_column(sa.Column("split", sa.String(64), nullable=False, server_default=""))
        batch.add_column(sa.Column("record", sa.LargeBinary, nullable=False, server_default=sa.text("''")))
    op.create_index("dataset_versions_with_content", "dataset_versions", ["project", "dataset", "digest", "split"])
