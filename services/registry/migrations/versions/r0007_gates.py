"""Gates, evaluations, approvals and promotions."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_MODEL = ("project", "model")
_VERSION = ["project", "model", "version"]
_MODEL_VERSION = ["model_versions.project", "model_versions.model", "model_versions.version"]


def upgrade() -> None:
    """Makes the tables."""
    _create_policies()
    _create_evidence()
    _create_promotions()


def _create_policies() -> None:
    key = [*_MODEL, "policy"]
    op.create_table(
        "gate_policies",
        *(sa.Column(name, sa.String(63), primary_key=True) for name in key),
        sa.Column("alias_pattern", sa.String(63), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("is_deletion", sa.Boolean, nullable=False),
        sa.ForeignKeyConstraint(_MODEL, ["models.project", "models.id"], name="gate_policies_model"),
    )
    op.create_table(
        "gate_policy_changes",
        *(sa.Column(name, sa.String(63), primary_key=True) for name in key),
        sa.Column("revision", sa.BigInteger, primary_key=True),
        sa.Column("record", sa.LargeBinary, nullable=False),
        sa.Column("is_deletion", sa.Boolean, nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("time_us", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(key, [f"gate_policies.{name}" for name in key], name="gate_policy_changes_policy"),
    )


def _create_evidence() -> None:
    op.create_table(
        "approvals",
        *(sa.Column(name, sa.String(63), primary_key=True) for name in (*_MODEL, "alias")),
        sa.Column("sequence", sa.BigInteger, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("is_revoked", sa.Boolean, nullable=False),
        sa.Column("comment", sa.String, nullable=False),
        sa.Column("time_us", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(_VERSION, _MODEL_VERSION, name="approvals_version"),
    )
    op.create_table(
        "evaluations",
        *(sa.Column(name, sa.String(63), primary_key=True) for name in _MODEL),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("dataset_digest", sa.String(64), primary_key=True),
        sa.Column("metric", sa.String(100), primary_key=True),
        sa.Column("dataset", sa.String(255), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("rows_digest", sa.String(64), nullable=False),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("mean", sa.Double, nullable=False),
        sa.Column("slices", sa.String, nullable=False),
        sa.Column("scores", sa.LargeBinary, nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.Column("creator", sa.String, nullable=False),
        sa.ForeignKeyConstraint(_VERSION, _MODEL_VERSION, name="evaluations_version"),
    )


def _create_promotions() -> None:
    def key() -> list[sa.Column[str] | sa.Column[int]]:
        texts = [sa.Column(name, sa.String(63), primary_key=True) for name in _MODEL]
        return [*texts, sa.Column("version", sa.Integer, primary_key=True)]

    op.create_table(
        "promotions",
        *key(),
        sa.Column("path", sa.String(400), nullable=False),
        sa.Column("destination", sa.String(600), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("patterns", sa.String, nullable=False),
        sa.Column("num_files", sa.Integer, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("message", sa.String, nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.Column("update_time_us", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(_VERSION, _MODEL_VERSION, name="promotions_version"),
    )
    op.create_index("promotions_by_destination", "promotions", ["destination"])
    op.create_index("promotions_by_state", "promotions", ["state"])
    op.create_table(
        "promotion_changes",
        *key(),
        sa.Column("sequence", sa.BigInteger, primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("path", sa.String(400), nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("message", sa.String, nullable=False),
        sa.Column("time_us", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(
            _VERSION, [f"promotions.{name}" for name in _VERSION], name="promotion_changes_promotion"
        ),
    )
