"""Migrations of every service, on both databases: they make the tables that the code uses and lose nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from services.grpckit.database import Database, PostgresAddress
from services.grpckit.migrations import known_revisions
from services.registry.tables import METADATA
from tests.support.killed_migration import migrate_until
from tests.support.postgres import TestDatabases
from tests.support.released import RELEASED, ServiceSchema, fill, released_rows, rows_of, schema_of

SERVICES = ("registry", "scheduler", "inference")
WRITER_TABLE = "tuneforge_writer"


@pytest.fixture
def postgres(each_database: str, request: pytest.FixtureRequest) -> PostgresAddress | None:
    """An empty database on the server, or None for SQLite: the test runs for each."""
    if each_database == "sqlite":
        return None
    databases: TestDatabases = request.getfixturevalue("postgres_databases")
    return databases.empty()


@contextmanager
def opened(database: Database) -> Iterator[Database]:
    """Opens a database, which brings it to its head."""
    database.open()
    try:
        yield database
    finally:
        database.close()


@pytest.mark.parametrize("service", SERVICES)
def test_the_head_is_the_newest_revision(service: str) -> None:
    """The constant that spares a start the reading of the folder is right."""
    schema = schema_of(service)
    assert known_revisions(schema.migrations)[-1] == schema.head


def test_migrations_and_tables_of_the_registry_agree(tmp_path: Path, postgres: PostgresAddress | None) -> None:
    """A database made by the migrations differs in nothing from the tables in the code."""

    def is_ours(_entry: object, name: str | None, *_rest: object) -> bool:
        return name != WRITER_TABLE

    def difference(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "include_object": is_ours})
        return list(compare_metadata(context, METADATA))

    with opened(schema_of("registry").database(tmp_path / "r.sqlite", postgres)) as database:
        assert database.read_sync(difference) == []


@pytest.mark.parametrize("service", SERVICES)
def test_a_released_database_keeps_every_row(service: str, tmp_path: Path, postgres: PostgresAddress | None) -> None:
    """What release 0.1 had written is read from the newest schema as it was, in every column that is still there."""
    schema, path = schema_of(service), tmp_path / "data" / "db"
    fill(schema, path, postgres)
    with opened(schema.database(path, postgres)) as database:
        assert_kept(database, schema)


def test_a_killed_migration_goes_on(tmp_path: Path, postgres: PostgresAddress | None) -> None:
    """Killed again and again, each time a few statements later, it still comes to its end with every row."""
    schema, path = schema_of("registry"), tmp_path / "data" / "db"
    fill(schema, path, postgres)
    kills = [migrate_until(schema, path, postgres, left) for left in (1, 9)]
    assert kills == [False, False]
    with opened(schema.database(path, postgres)) as database:
        assert_kept(database, schema)


@pytest.mark.heavy
def test_a_migration_may_be_killed_anywhere(tmp_path: Path, each_database: str, request: pytest.FixtureRequest) -> None:
    """Killed before each statement in turn, the next start does the rest."""
    schema = schema_of("registry")
    left = 0
    while True:
        path = tmp_path / str(left) / "db"
        postgres = None
        if each_database == "postgres":
            databases: TestDatabases = request.getfixturevalue("postgres_databases")
            postgres = databases.empty()
        fill(schema, path, postgres)
        is_done = migrate_until(schema, path, postgres, left)
        with opened(schema.database(path, postgres)) as database:
            assert_kept(database, schema)
        if is_done:
            return
        left += 6


def assert_kept(database: Database, schema: ServiceSchema) -> None:
    """Fails unless every row of the release is there, in the columns that the newest schema still has."""
    before = released_rows(schema.service)
    now = database.read_sync(lambda connection: rows_of(connection, before))
    assert RELEASED in known_revisions(schema.migrations)
    for table, rows in before.items():
        kept = set(rows[0]) & set(now[table][0]) if rows and now[table] else set()
        assert _only(rows, kept) == _only(now[table], kept), table


def _only(rows: list[dict[str, Any]], columns: set[str]) -> list[dict[str, Any]]:
    return sorted(({name: row[name] for name in sorted(columns)} for row in rows), key=repr)
