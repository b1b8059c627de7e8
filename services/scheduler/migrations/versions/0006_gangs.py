"""Attempts on several nodes: one row for each node; those that are there have one."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_KEPT = (
    "job", "attempt", "node", "token", "state", "is_confirmed", "is_closed", "failure", "outcome", "stall",
    "resumed_step", "step", "last_seq", "create_ms", "end_ms",
)  # fmt: skip


def upgrade() -> None:
    """Makes the table anew, for SQLite changes no primary key, and copies what is there."""
    op.add_column("jobs", sa.Column("nodes", sa.Integer, nullable=False, server_default="1"))
    op.create_table(
        "attempt_parts",
        sa.Column("job", _NUMBER, sa.ForeignKey("jobs.number"), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("node_rank", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("nodes", sa.Integer, nullable=False),
        sa.Column("node", sa.String(63), nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("is_confirmed", sa.Boolean, nullable=False),
        sa.Column("is_closed", sa.Boolean, nullable=False),
        sa.Column("is_broken", sa.Boolean, nullable=False),
        sa.Column("is_leaving", sa.Boolean, nullable=False),
        sa.Column("rendezvous", sa.Text, nullable=False),
        sa.Column("failure", sa.LargeBinary),
        sa.Column("outcome", sa.LargeBinary),
        sa.Column("stall", sa.LargeBinary),
        sa.Column("resumed_step", sa.BigInteger, nullable=False),
        sa.Column("step", sa.BigInteger, nullable=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("create_ms", sa.BigInteger, nullable=False),
        sa.Column("end_ms", sa.BigInteger),
        sa.UniqueConstraint("token", "node_rank", name="attempts_token"),
    )
    added: dict[str, Any] = {
        "node_rank": sa.literal(0),
        "nodes": sa.literal(1),
        "is_broken": sa.false(),
        "is_leaving": sa.false(),
    }
    added["rendezvous"] = sa.literal("")
    old, new = (sa.table(name, *map(sa.column, (*_KEPT, *added))) for name in ("attempts", "attempt_parts"))
    rows = sa.select(*(old.c[name] for name in _KEPT), *added.values())
    op.execute(new.insert().from_select([*_KEPT, *added], rows))
    op.drop_table("attempts")
    op.rename_table("attempt_parts", "attempts")
    op.create_index("attempts_open", "attempts", ["is_closed"])
