"""Tables of gate policies, approvals and evaluations."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    String,
    Table,
)

from services.registry.tables.metadata import METADATA

# The newest revision of each policy; a deleted one keeps its row, so that its revisions are counted on.
GATE_POLICIES = Table(
    "gate_policies",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("policy", String(63), primary_key=True),
    Column("alias_pattern", String(63), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("is_deletion", Boolean, nullable=False),
    ForeignKeyConstraint(["project", "model"], ["models.project", "models.id"], name="gate_policies_model"),
)

# Only ever added to.
GATE_POLICY_CHANGES = Table(
    "gate_policy_changes",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("policy", String(63), primary_key=True),
    Column("revision", BigInteger, primary_key=True),
    # A serialised `GatePolicy`.
    Column("record", LargeBinary, nullable=False),
    Column("is_deletion", Boolean, nullable=False),
    Column("actor", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("time_us", BigInteger, nullable=False),
    ForeignKeyConstraint(
        ["project", "model", "policy"],
        ["gate_policies.project", "gate_policies.model", "gate_policies.policy"],
        name="gate_policy_changes_policy",
    ),
)

# Data set versions that the present revisions name, so that a deletion need not read every policy.
GATE_POLICY_DATASETS = Table(
    "gate_policy_datasets",
    METADATA,
    Column("dataset", String(255), primary_key=True),
    Column("project", String(63), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("policy", String(63), primary_key=True),
    ForeignKeyConstraint(
        ["project", "model", "policy"],
        ["gate_policies.project", "gate_policies.model", "gate_policies.policy"],
        name="gate_policy_datasets_policy",
    ),
)

# Only ever added to: the newest entry of an actor for an alias and a version counts.
APPROVALS = Table(
    "approvals",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("alias", String(63), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("actor", String, nullable=False),
    Column("is_revoked", Boolean, nullable=False),
    Column("comment", String, nullable=False),
    Column("time_us", BigInteger, nullable=False),
    ForeignKeyConstraint(
        ["project", "model", "version"],
        ["model_versions.project", "model_versions.model", "model_versions.version"],
        name="approvals_version",
    ),
)

# Written once each by every reporter; scores are never changed.
EVALUATIONS = Table(
    "reported_evaluations",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("dataset_digest", String(64), primary_key=True),
    Column("metric", String(100), primary_key=True),
    # Who reported: what one says does not keep another one from saying something else.
    Column("creator", String(256), primary_key=True),
    # Of the creator at that time; see `reporters.py`.
    Column("roles", String, nullable=False),
    Column("dataset", String(255), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("rows_digest", String(64), nullable=False),
    Column("rows", Integer, nullable=False),
    Column("mean", Double, nullable=False),
    # Labels, as JSON.
    Column("slices", String, nullable=False),
    # See `gates/scores.py`.
    Column("scores", LargeBinary, nullable=False),
    Column("create_time_us", BigInteger, nullable=False),
    ForeignKeyConstraint(
        ["project", "model", "version"],
        ["model_versions.project", "model_versions.model", "model_versions.version"],
        name="reported_evaluations_version",
    ),
)
