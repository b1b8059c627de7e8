"""Jobs, attempts, checkpoints, events, nodes, outbox, counters and remembered requests.

A trigger keeps terminal states terminal and tokens growing: the third guard behind the rules and the SQL conditions.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from services.grpckit import request_memory

revision = "0001"
down_revision = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Makes every table."""
    _jobs()
    _attempts()
    _logs()
    op.create_table(
        "nodes",
        sa.Column("node", sa.String(63), primary_key=True),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("capacity", sa.LargeBinary, nullable=False),
        sa.Column("labels", sa.Text, nullable=False),
        sa.Column("generation", sa.String(64), nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("lease_until_ms", sa.BigInteger, nullable=False),
        sa.Column("unreachable_ms", sa.BigInteger),
        sa.Column("manager_token", sa.String(64), nullable=False),
    )
    op.create_table(
        "outbox",
        sa.Column("id", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("job", _NUMBER, sa.ForeignKey("jobs.number"), nullable=False, unique=True),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("create_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "counters",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.create_table(request_memory.TABLE_NAME, *request_memory.columns())
    _guards()


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("uid", sa.BigInteger, nullable=False),
        sa.Column("project", sa.String(63), nullable=False),
        sa.Column("job_id", sa.String(63), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("from_state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("creator", sa.String(256), nullable=False),
        sa.Column("labels", sa.Text, nullable=False),
        sa.Column("spec", sa.LargeBinary, nullable=False),
        sa.Column("inputs", sa.LargeBinary),
        sa.Column("estimate", sa.LargeBinary),
        sa.Column("base_version", sa.Text),
        sa.Column("base_digest", sa.String(64)),
        sa.Column("train_version", sa.Text, nullable=False),
        sa.Column("train_digest", sa.String(64), nullable=False),
        sa.Column("validation_version", sa.Text),
        sa.Column("validation_digest", sa.String(64)),
        sa.Column("architecture_version", sa.Text),
        sa.Column("output_model", sa.Text, nullable=False),
        sa.Column("depends_on", _NUMBER, sa.ForeignKey("jobs.number")),
        sa.Column("devices", sa.Integer),
        sa.Column("peak_bytes", sa.BigInteger, nullable=False),
        sa.Column("host_bytes", sa.BigInteger, nullable=False),
        sa.Column("cpu_millis", sa.BigInteger, nullable=False),
        sa.Column("node_labels", sa.Text, nullable=False),
        sa.Column("lost_after_ms", sa.BigInteger, nullable=False),
        sa.Column("keep_checkpoints", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("faults", sa.Integer, nullable=False),
        sa.Column("not_before_ms", sa.BigInteger, nullable=False),
        sa.Column("failure", sa.LargeBinary),
        sa.Column("resolved", sa.LargeBinary),
        sa.Column("version", sa.Text),
        sa.Column("digest", sa.String(64)),
        sa.Column("step", sa.BigInteger, nullable=False),
        sa.Column("total_steps", sa.BigInteger, nullable=False),
        sa.Column("create_ms", sa.BigInteger, nullable=False),
        sa.Column("start_ms", sa.BigInteger),
        sa.Column("end_ms", sa.BigInteger),
        sa.Column("latest_seq", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("project", "job_id", name="jobs_name"),
        sqlite_autoincrement=True,
    )
    op.create_index("jobs_by_project", "jobs", ["project", "number"])
    op.create_index("jobs_by_state", "jobs", ["state"])
    op.create_index("jobs_by_dependency", "jobs", ["depends_on"])


def _attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("job", _NUMBER, sa.ForeignKey("jobs.number"), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("node", sa.String(63), nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False, unique=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("is_confirmed", sa.Boolean, nullable=False),
        sa.Column("is_closed", sa.Boolean, nullable=False),
        sa.Column("failure", sa.LargeBinary),
        sa.Column("outcome", sa.LargeBinary),
        sa.Column("resumed_step", sa.BigInteger, nullable=False),
        sa.Column("step", sa.BigInteger, nullable=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("create_ms", sa.BigInteger, nullable=False),
        sa.Column("end_ms", sa.BigInteger),
    )
    op.create_index("attempts_open", "attempts", ["is_closed"])


def _logs() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("job", _NUMBER, sa.ForeignKey("jobs.number"), primary_key=True),
        sa.Column("step", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("node", sa.String(63), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("create_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "chunks",
        sa.Column("job", _NUMBER, sa.ForeignKey("jobs.number"), primary_key=True),
        sa.Column("first_seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
    )


def _guards() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            "CREATE TRIGGER jobs_terminal_is_terminal BEFORE UPDATE OF state ON jobs "
            "WHEN OLD.state IN ('SUCCEEDED', 'FAILED', 'CANCELLED') AND NEW.state <> OLD.state "
            "BEGIN SELECT RAISE(ABORT, 'a job that has ended cannot change its state'); END"
        )
        op.execute(
            "CREATE TRIGGER jobs_token_grows BEFORE UPDATE OF token ON jobs WHEN NEW.token < OLD.token "
            "BEGIN SELECT RAISE(ABORT, 'a fencing token only grows'); END"
        )
        return
    op.execute(
        "CREATE FUNCTION jobs_guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF OLD.state IN ('SUCCEEDED', 'FAILED', 'CANCELLED') AND NEW.state <> OLD.state THEN "
        "RAISE EXCEPTION 'a job that has ended cannot change its state'; END IF; "
        "IF NEW.token < OLD.token THEN RAISE EXCEPTION 'a fencing token only grows'; END IF; "
        "RETURN NEW; END $$"
    )
    op.execute(
        "CREATE TRIGGER jobs_guard BEFORE UPDATE OF state, token ON jobs FOR EACH ROW EXECUTE FUNCTION jobs_guard()"
    )
