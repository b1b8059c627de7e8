"""By what name a service's database is known to other services: made once, the same for ever, whoever serves it.

The name is a row in the database itself, so it follows the data to another machine and goes with it when it is lost.
"""

from __future__ import annotations

import secrets
from typing import Any

from sqlalchemy import Column, Connection, MetaData, String, Table, insert, select

TABLE_NAME = "service_identity"


def columns() -> list[Column[Any]]:
    """Returns the table's columns, for `op.create_table` in a service's migration."""
    return [Column("name", String(64), primary_key=True)]


_IDENTITY = Table(TABLE_NAME, MetaData(), *columns())


def identity(connection: Connection, service: str) -> str:
    """Returns the name, `<service>-<16 digits>`; makes it at the first call, which needs a transaction that writes."""
    found = connection.execute(select(_IDENTITY.c.name)).scalars().first()
    if found is None:
        found = f"{service}-{secrets.token_hex(8)}"
        connection.execute(insert(_IDENTITY).values(name=found))
    return str(found)
