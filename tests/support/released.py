"""Databases as released versions left them: real rows of a suite that imported, tuned, published, promoted and served.

`released_0001.json` was read out of the three databases of release 0.1. They are put into a fresh database at that
release's revision, from which the newest migrations go on.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Boolean, Connection, MetaData, Table, inspect, select, text

from services.grpckit import migrations
from services.grpckit.database import Database, PostgresAddress
from services.grpckit.database.backend import Backend
from services.grpckit.database.postgres import Postgres
from services.grpckit.database.sqlite import Sqlite

RELEASED = "0001"
Rows = Mapping[str, list[dict[str, Any]]]
"""Table → its rows."""


@dataclass(frozen=True, slots=True)
class ServiceSchema:
    """A service's migrations."""

    service: str
    migrations: Path
    head: str

    def database(self, path: Path, postgres: PostgresAddress | None) -> Database:
        """Returns the service's database, not yet open."""
        return Database(
            path, migrations=self.migrations, schema_head=self.head, service=self.service, postgres=postgres
        )


def schema_of(service: str) -> ServiceSchema:
    """Returns where a service's migrations are, and the newest."""
    if service == "registry":
        from services.registry import tables

        return ServiceSchema(service, tables.MIGRATIONS, tables.SCHEMA_HEAD)
    if service == "scheduler":
        from services.scheduler import service as scheduler

        return ServiceSchema(service, scheduler.MIGRATIONS, scheduler.SCHEMA_HEAD)
    from services.inference import store

    return ServiceSchema(service, store.MIGRATIONS, store.SCHEMA_HEAD)


@cache
def released_rows(service: str) -> Rows:
    """Returns the rows that the release had, without those of the migrations themselves."""
    found = json.loads(Path(__file__).with_name("released_0001.json").read_text())[service]
    return {
        name: [dict(zip(table["columns"], map(_value, row), strict=True)) for row in table["rows"]]
        for name, table in found.items()
        if name != "alembic_version"
    }


def fill(schema: ServiceSchema, path: Path, postgres: PostgresAddress | None) -> None:
    """Makes a service's database as the release left it: its revision, its rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    backend: Backend = Sqlite(path) if postgres is None else Postgres(postgres)
    connection = backend.open_writer()
    try:
        backend.claim(connection, schema.service)
        migrations.upgrade(connection, schema.migrations, None, target=RELEASED)
        with connection.begin():
            _insert(connection, released_rows(schema.service))
    finally:
        connection.close()
        backend.close()


def rows_of(connection: Connection, names: Mapping[str, object]) -> Rows:
    """Returns all rows of tables, as they are now."""
    metadata = MetaData()
    metadata.reflect(connection, only=list(names))
    return {name: [dict(row._mapping) for row in connection.execute(select(metadata.tables[name]))] for name in names}


def _insert(connection: Connection, rows: Rows) -> None:
    metadata = MetaData()
    metadata.reflect(connection)
    for table in metadata.sorted_tables:
        if found := rows.get(table.name):
            connection.execute(table.insert(), [_typed(table, row) for row in found])
    if connection.dialect.name == "postgresql":
        _move_sequences(connection)


def _move_sequences(connection: Connection) -> None:
    """Lets numbering go on behind the rows that brought their own numbers."""
    for name in inspect(connection).get_table_names():
        for column in inspect(connection).get_columns(name):
            if column.get("autoincrement") and "nextval" in str(column.get("default") or ""):
                key = column["name"]
                sequence = f"pg_get_serial_sequence('{name}', '{key}')"
                connection.execute(text(f"SELECT setval({sequence}, (SELECT max({key}) FROM {name}))"))


def _typed(table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: bool(value) if isinstance(table.c[name].type, Boolean) and value is not None else value
        for name, value in row.items()
    }


def _value(value: Any) -> Any:
    return base64.b64decode(value["b"]) if isinstance(value, dict) else value
