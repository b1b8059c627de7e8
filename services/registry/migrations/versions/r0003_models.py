"""Models: facts by which versions are found, figures to sort by, validation reports."""

import math

import sqlalchemy as sa
from alembic import op

from tuneforge.architectures import FRAMEWORK, task_of
from tuneforge.v1 import models_pb2

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Makes the tables and fills them from the versions that are there."""
    facts, metrics = _create_facts(), _create_metrics()
    _create_labels()
    op.create_table(
        "validation_reports",
        *_version_key(),
        sa.Column("validation", sa.Integer, primary_key=True),
        sa.Column("passed", sa.Boolean, nullable=False),
        sa.Column("record", sa.LargeBinary, nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.Column("creator", sa.String, nullable=False),
        sa.ForeignKeyConstraint(
            ["project", "model", "version"],
            ["model_versions.project", "model_versions.model", "model_versions.version"],
        ),
    )
    _fill(op.get_bind(), facts, metrics)


def _version_key() -> tuple[sa.Column[str], sa.Column[str], sa.Column[int]]:
    return (
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("model", sa.String(63), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
    )


def _create_facts() -> sa.Table:
    return op.create_table(
        "model_facts",
        *_version_key(),
        sa.Column("task", sa.String(63), nullable=False),
        sa.Column("framework", sa.String(63), nullable=False),
        sa.Column("architecture", sa.String(200), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("parameters", sa.BigInteger, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.Column("license", sa.String(200), nullable=False),
        sa.Column("domain", sa.String(200), nullable=False),
        sa.Column("description", sa.String, nullable=False),
        sa.Column("labels", sa.LargeBinary, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("update_time_us", sa.BigInteger, nullable=False),
    )


def _create_metrics() -> sa.Table:
    return op.create_table(
        "model_metrics",
        *_version_key(),
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("value", sa.Double, nullable=False),
    )


def _create_labels() -> None:
    op.create_table(
        "model_labels",
        *_version_key(),
        sa.Column("is_tag", sa.Boolean, primary_key=True),
        sa.Column("label", sa.String(63), primary_key=True),
        sa.Column("value", sa.String, nullable=False),
    )
    op.create_index("model_labels_by_label", "model_labels", ["project", "is_tag", "label"])


def _fill(connection: sa.Connection, facts: sa.Table, metrics: sa.Table) -> None:
    names = ("project", "model", "version", "kind", "size_bytes", "create_time_us", "record")
    versions = sa.table("model_versions", *map(sa.column, names))
    for row in connection.execute(sa.select(versions)).all():
        record = models_pb2.ModelVersion.FromString(row.record)
        key = {"project": row.project, "model": row.model, "version": row.version}
        connection.execute(
            sa.insert(facts).values(
                **key,
                task=task_of(record.architecture.class_name) or "",
                framework=FRAMEWORK,
                architecture=record.architecture.class_name,
                kind=row.kind,
                parameters=record.architecture.parameters,
                size_bytes=row.size_bytes,
                create_time_us=row.create_time_us,
                license="",
                domain="",
                description="",
                labels=b"",
                revision=1,
                update_time_us=row.create_time_us,
            )
        )
        for name, value in record.metrics.items():
            if math.isfinite(value) and len(name) <= 200:
                connection.execute(sa.insert(metrics).values(**key, name=name, value=value))
