"""The migrations make the tables that the code uses."""

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from services.grpckit.database import Database
from services.grpckit.migrations import known_revisions
from services.registry.tables import METADATA, MIGRATIONS, SCHEMA_HEAD


def test_the_head_is_the_newest_revision() -> None:
    """The constant that spares a start the reading of the folder is right."""
    assert known_revisions(MIGRATIONS)[-1] == SCHEMA_HEAD


def test_migrations_and_tables_agree(tmp_path: Path) -> None:
    """A database made by the migrations differs in nothing from the tables in the code."""

    def difference(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), METADATA))

    database = Database(tmp_path / "registry.sqlite", migrations=MIGRATIONS, schema_head=SCHEMA_HEAD)
    database.open()
    try:
        assert database.read_sync(difference) == []
    finally:
        database.close()
