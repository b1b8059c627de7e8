"""Data sets, models, their versions, aliases with their log, blobs by project, remembered requests."""

import sqlalchemy as sa
from alembic import op

from services.grpckit import request_memory

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes every table."""
    op.create_table(request_memory.TABLE_NAME, *request_memory.columns())
    for table in ("datasets", "models"):
        op.create_table(
            table,
            sa.Column("project", sa.String(63), primary_key=True),
            sa.Column("id", sa.String(63), primary_key=True),
            sa.Column("description", sa.String, nullable=False),
            sa.Column("create_time_us", sa.BigInteger, nullable=False),
            sa.Column("creator", sa.String, nullable=False),
            sa.Column("latest", sa.Integer, nullable=False),
        )
    _create_versions()
    _create_aliases()
    op.create_table(
        "blobs",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
    )


def _create_versions() -> None:
    op.create_table(
        "dataset_versions",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("dataset", sa.String(63), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("shape", sa.String(32), nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("manifest", sa.LargeBinary, nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.Column("creator", sa.String, nullable=False),
        sa.ForeignKeyConstraint(["project", "dataset"], ["datasets.project", "datasets.id"]),
        sa.UniqueConstraint("project", "dataset", "digest", name="dataset_versions_by_content"),
    )
    op.create_table(
        "model_versions",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("model", sa.String(63), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("import_digest", sa.String(64)),
        sa.Column("job", sa.String),
        sa.Column("base_version", sa.String),
        sa.Column("dataset_version", sa.String),
        sa.Column("record", sa.LargeBinary, nullable=False),
        sa.Column("tensors", sa.LargeBinary, nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.Column("creator", sa.String, nullable=False),
        sa.ForeignKeyConstraint(["project", "model"], ["models.project", "models.id"]),
        sa.UniqueConstraint("project", "model", "import_digest", name="model_versions_by_content"),
        sa.UniqueConstraint("job", name="model_versions_by_job"),
    )
    op.create_index("model_versions_by_digest", "model_versions", ["project", "model", "digest"])
    op.create_index("model_versions_by_base", "model_versions", ["base_version"])
    op.create_index("model_versions_by_dataset", "model_versions", ["dataset_version"])


def _create_aliases() -> None:
    key = ["project", "model", "alias"]
    op.create_table(
        "aliases",
        *(sa.Column(name, sa.String(63), primary_key=True) for name in key),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("update_time_us", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(
            ["project", "model", "version"],
            ["model_versions.project", "model_versions.model", "model_versions.version"],
        ),
    )
    op.create_table(
        "alias_changes",
        *(sa.Column(name, sa.String(63), primary_key=True) for name in key),
        sa.Column("sequence", sa.BigInteger, primary_key=True),
        sa.Column("from_version", sa.Integer, nullable=False),
        sa.Column("to_version", sa.Integer, nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("time_us", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(key, [f"aliases.{name}" for name in key]),
    )
