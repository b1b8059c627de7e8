"""Blobs: where their bytes lie, which versions use them, unfinished uploads, pins, expirations and deletions.

What is stored already lies where it lay, and every version that is there uses the blobs of its manifest.
"""

import json

import sqlalchemy as sa
from alembic import op

from tuneforge.v1 import models_pb2

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Adds tables and columns and fills them from what is there; see `services/registry/tables/blobs.py`."""
    op.add_column("blobs", sa.Column("used_time_us", sa.BigInteger, nullable=False, server_default="0"))
    for table in ("datasets", "dataset_versions", "models", "model_versions"):
        op.add_column(table, sa.Column("delete_time_us", sa.BigInteger))
    _make_blob_tables()
    _make_retention_tables()
    connection = op.get_bind()
    _fill_places(connection)
    _fill_uses(connection)


def _make_blob_tables() -> None:
    op.create_table(
        "blob_places",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("place", sa.String(200), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("place", name="blob_places_by_place"),
    )
    op.create_table(
        "blob_uses",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("holder", sa.String(300), primary_key=True),
    )
    op.create_index("blob_uses_by_holder", "blob_uses", ["holder"])
    op.create_table(
        "blob_uploads",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("place", sa.String(200), nullable=False),
        sa.Column("upload_id", sa.String(300), nullable=False),
        sa.Column("part_bytes", sa.BigInteger, nullable=False),
        sa.Column("update_time_us", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "blob_tombstones",
        sa.Column("place", sa.String(200), primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("time_us", sa.BigInteger, nullable=False),
    )
    op.create_table("blob_owner", sa.Column("owner", sa.String(32), primary_key=True))


def _make_retention_tables() -> None:
    op.create_table(
        "pins",
        sa.Column("name", sa.String(300), primary_key=True),
        sa.Column("reason", sa.String(200), primary_key=True),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("time_us", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "expirations",
        sa.Column("name", sa.String(300), primary_key=True),
        sa.Column("expire_time_us", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.String, nullable=False),
    )
    op.create_index("expirations_by_time", "expirations", ["expire_time_us"])
    op.create_table(
        "deletions",
        sa.Column("name", sa.String(300), primary_key=True),
        sa.Column("time_us", sa.BigInteger, primary_key=True),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
    )
    op.create_table(
        "retention_policies",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("upload_kept_s", sa.BigInteger, nullable=False),
        sa.Column("update_time_us", sa.BigInteger, nullable=False),
    )


def _fill_places(connection: sa.Connection) -> None:
    connection.execute(sa.text("UPDATE blobs SET used_time_us = create_time_us"))
    connection.execute(
        sa.text(
            "INSERT INTO blob_places (sha256, place, size_bytes, create_time_us) "
            "SELECT sha256, substr(sha256, 1, 2) || '/' || sha256, max(size_bytes), min(create_time_us) "
            "FROM blobs GROUP BY sha256"
        )
    )


def _fill_uses(connection: sa.Connection) -> None:
    statement = sa.text("SELECT project, dataset, version, manifest FROM dataset_versions")
    for row in connection.execute(statement).all():
        name = f"projects/{row.project}/datasets/{row.dataset}/versions/{row.version}"
        _add_uses(connection, row.project, name, {file["sha256"] for file in json.loads(row.manifest)["files"]})
    statement = sa.text("SELECT project, model, version, record FROM model_versions")
    for row in connection.execute(statement).all():
        name = f"projects/{row.project}/models/{row.model}/versions/{row.version}"
        manifest = models_pb2.ModelVersion.FromString(bytes(row.record)).manifest
        _add_uses(connection, row.project, name, {file.sha256 for file in manifest.files})


def _add_uses(connection: sa.Connection, project: str, holder: str, digests: set[str]) -> None:
    statement = sa.text("INSERT INTO blob_uses (project, sha256, holder) VALUES (:project, :sha256, :holder)")
    for sha256 in sorted(digests):
        connection.execute(statement, {"project": project, "sha256": sha256, "holder": holder})
