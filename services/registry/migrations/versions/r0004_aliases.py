"""Aliases: the whole log of their moves, numbered and timed in one order a project; deletions are moves.

The two tables are made anew, since neither database can loosen a column of the first one while the second refers to it
and keep the constraint's name. What is in them is read before and written back after.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_KEY = ("project", "model", "alias")


def upgrade() -> None:
    """Makes the tables anew with what was in them."""
    connection = op.get_bind()
    old_aliases = [dict(row) for row in connection.execute(sa.text("SELECT * FROM aliases")).mappings()]
    old_changes = [dict(row) for row in connection.execute(sa.text("SELECT * FROM alias_changes")).mappings()]
    op.drop_table("alias_changes")
    op.drop_table("aliases")
    aliases, changes, clocks = _create()
    moves, last = _numbered(old_changes)
    heads = {tuple(move[part] for part in _KEY): move for move in sorted(moves, key=lambda move: move["sequence"])}
    for alias in old_aliases:
        move = heads[tuple(alias[part] for part in _KEY)]
        row = alias | {"position": move["position"], "update_time_us": move["time_us"]}
        connection.execute(sa.insert(aliases).values(**row))
    for move in moves:
        connection.execute(sa.insert(changes).values(**move))
    for project, (position, time_us) in last.items():
        connection.execute(sa.insert(clocks).values(project=project, position=position, time_us=time_us))


def _numbered(changes: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, tuple[int, int]]]:
    """Returns the moves with positions and strictly rising times, and the last of both by project."""
    last: dict[str, tuple[int, int]] = {}
    moves = []
    for change in sorted(_in_order(changes), key=lambda change: change["order"]):
        position, time_us = last.get(change["project"], (0, 0))
        change["position"], change["time_us"] = position + 1, max(change["time_us"], time_us + 1)
        last[change["project"]] = change["position"], change["time_us"]
        del change["order"]
        moves.append(change | {"kind": "SET", "restored_sequence": 0, "is_forced": False, "gates": b""})
    return moves, last


def _in_order(changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Gives each move the place among all: by time, but never before an earlier move of the same alias."""
    latest: dict[tuple[str, ...], int] = {}
    for change in sorted(changes, key=lambda change: change["sequence"]):
        key = tuple(change[part] for part in _KEY)
        latest[key] = max(change["time_us"], latest.get(key, 0))
        change["order"] = (latest[key], *key, change["sequence"])
    return changes


def _create() -> tuple[sa.Table, sa.Table, sa.Table]:
    aliases = op.create_table(
        "aliases",
        *(sa.Column(name, sa.String(63), primary_key=True) for name in _KEY),
        sa.Column("version", sa.Integer),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("update_time_us", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(
            ["project", "model", "version"],
            ["model_versions.project", "model_versions.model", "model_versions.version"],
            name="aliases_version",
        ),
    )
    changes = op.create_table(
        "alias_changes",
        *(sa.Column(name, sa.String(63), primary_key=True) for name in _KEY),
        sa.Column("sequence", sa.BigInteger, primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("from_version", sa.Integer, nullable=False),
        sa.Column("to_version", sa.Integer, nullable=False),
        sa.Column("restored_sequence", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("time_us", sa.BigInteger, nullable=False),
        sa.Column("is_forced", sa.Boolean, nullable=False),
        sa.Column("gates", sa.LargeBinary, nullable=False),
        sa.ForeignKeyConstraint(_KEY, [f"aliases.{name}" for name in _KEY], name="alias_changes_alias"),
        sa.UniqueConstraint("project", "position", name="alias_changes_by_position"),
    )
    op.create_index("alias_changes_by_time", "alias_changes", [*_KEY, "time_us"])
    clocks = op.create_table(
        "alias_clocks",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("time_us", sa.BigInteger, nullable=False),
    )
    return aliases, changes, clocks
