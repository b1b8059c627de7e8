"""Updates that were made once and set other columns each time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection
from sqlalchemy.sql.dml import Update


def set_values(connection: Connection, statement: Update, *rows: Mapping[str, Any]) -> int:
    """Runs an update and returns how many rows it changed.

    Args:
        connection: In a transaction that writes.
        statement: Says which rows, by parameters.
        rows: Columns to set, also to expressions, and the parameters of the statement. Several have the same columns,
            and the same expressions.
    """
    expressions = {name: value for name, value in rows[0].items() if isinstance(value, ColumnElement)}
    if expressions:
        statement = statement.values(**expressions)
        rows = tuple({name: value for name, value in row.items() if name not in expressions} for row in rows)
    return connection.execute(statement, rows if len(rows) > 1 else rows[0]).rowcount
