"""Updates that were made once and set other columns each time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection
from sqlalchemy.sql.dml import Update


def set_values(connection: Connection, statement: Update, values: Mapping[str, Any], key: Mapping[str, Any]) -> int:
    """Runs an update and returns how many rows it changed.

    Args:
        connection: In a transaction that writes.
        statement: Says which rows, by parameters.
        values: Columns to set, also to expressions, and further parameters of the statement.
        key: The parameters that say which rows.
    """
    if expressions := {name: value for name, value in values.items() if isinstance(value, ColumnElement)}:
        statement = statement.values(**expressions)
        values = {name: value for name, value in values.items() if name not in expressions}
    return connection.execute(statement, {**values, **key}).rowcount
