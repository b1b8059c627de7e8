"""Who reported scores and checks, with which roles; scores by every reporter beside each other."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_ALL = " admin editor evaluator service viewer "
"""Of `local`, who has every role."""
_COLUMNS = (
    "project, model, version, dataset_digest, metric, creator, dataset, digest, rows_digest, rows, mean, slices, "
    "scores, create_time_us"
)
# A version that a job made has the report of its run as the first: services alone publish.
_IS_OF_RUN = (
    "validation = 1 AND EXISTS (SELECT 1 FROM model_versions v WHERE v.project = validation_reports.project "
    "AND v.model = validation_reports.model AND v.version = validation_reports.version AND v.job IS NOT NULL "
    "AND v.create_time_us = validation_reports.create_time_us)"
)


def upgrade() -> None:
    """Adds the roles; what others than `local` and runs reported before is kept and counts where a gate names them."""
    op.add_column("validation_reports", sa.Column("roles", sa.String, nullable=False, server_default=""))
    op.execute(f"UPDATE validation_reports SET roles = ' service ' WHERE {_IS_OF_RUN}")  # noqa: S608 - constants
    op.execute(f"UPDATE validation_reports SET roles = '{_ALL}' WHERE creator = 'local'")  # noqa: S608 - constants
    op.create_table(
        "reported_evaluations",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("model", sa.String(63), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("dataset_digest", sa.String(64), primary_key=True),
        sa.Column("metric", sa.String(100), primary_key=True),
        sa.Column("creator", sa.String(256), primary_key=True),
        sa.Column("roles", sa.String, nullable=False),
        sa.Column("dataset", sa.String(255), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("rows_digest", sa.String(64), nullable=False),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("mean", sa.Double, nullable=False),
        sa.Column("slices", sa.String, nullable=False),
        sa.Column("scores", sa.LargeBinary, nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(
            ["project", "model", "version"],
            ["model_versions.project", "model_versions.model", "model_versions.version"],
            name="reported_evaluations_version",
        ),
    )
    roles = f"CASE WHEN creator = 'local' THEN '{_ALL}' ELSE '' END"
    op.execute(
        f"INSERT INTO reported_evaluations ({_COLUMNS}, roles) SELECT {_COLUMNS}, {roles} FROM evaluations"  # noqa: S608
    )
    op.drop_table("evaluations")
