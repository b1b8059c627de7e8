"""Aliases of an older registry keep their history when the log gets positions and rising times."""

from pathlib import Path

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from services.grpckit.database import Database
from services.registry.aliases import log, store
from services.registry.tables import MIGRATIONS, SCHEMA_HEAD
from tuneforge.names import AliasName

MOVES = (
    ("production", 1, 0, 1, 50),
    ("production", 2, 1, 2, 40),
    ("staging", 1, 0, 2, 45),
    ("production", 3, 2, 1, 60),
)


def test_moves_that_are_there_are_kept(tmp_path: Path) -> None:
    """Each move stays with its text; times that went back rise, the order within an alias is that of its numbers."""
    path = tmp_path / "registry.sqlite"
    _only_first(path)
    database = Database(path, migrations=MIGRATIONS, schema_head=SCHEMA_HEAD)
    database.open()
    try:
        told = database.read_sync(lambda c: log.changes_after(c, "p", 0, 100))
        assert [(each.name.alias, each.sequence, each.position) for each in told] == [
            ("staging", 1, 1),
            ("production", 1, 2),
            ("production", 2, 3),
            ("production", 3, 4),
        ]
        assert [each.time_us for each in told] == [45, 50, 51, 60]
        assert {each.reason for each in told} == {"why"}
        alias = database.read_sync(lambda c: store.get_alias(c, AliasName("p", "m", "production")))
        assert (alias.version, alias.sequence, alias.update_time_us) == (1, 3, 60)
        assert database.read_sync(lambda c: log.latest(c, "p")) == (4, 60)
    finally:
        database.close()


def _only_first(path: Path) -> None:
    """Makes the schema of the first release, with two aliases in it."""
    script = ScriptDirectory(str(MIGRATIONS))
    first = script.get_revision("0001")

    def make(connection: Connection) -> None:
        context = MigrationContext.configure(connection)
        with Operations.context(context):
            first.module.upgrade()
        context.stamp(script, "0001")
        _fill(connection)

    # A folder without revisions leaves the database empty.
    empty = Database(path, migrations=_empty(path.parent), schema_head="none")
    empty.open()
    empty.write_sync(make)
    empty.close()


def _empty(folder: Path) -> Path:
    (folder / "none" / "versions").mkdir(parents=True)
    return folder / "none"


def _fill(connection: Connection) -> None:
    def add(table: str, **values: object) -> None:
        names = ", ".join(values)
        places = ", ".join(f":{name}" for name in values)
        connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({places})"), values)

    key = {"project": "p", "model": "m"}
    add("models", project="p", id="m", description="", create_time_us=1, creator="c", latest=2)
    for number in (1, 2):
        version = {"version": number, "digest": f"{number}" * 64, "kind": "MODEL", "size_bytes": 1}
        rest = {"import_digest": str(number), "record": b"", "tensors": b"", "create_time_us": 1, "creator": "c"}
        add("model_versions", **key, **version, **rest)
    for alias, number, sequence in (("production", 1, 3), ("staging", 2, 1)):
        add("aliases", **key, alias=alias, version=number, sequence=sequence, update_time_us=60)
    for alias, sequence, old, new, time_us in MOVES:
        move = {"alias": alias, "sequence": sequence, "from_version": old, "to_version": new, "time_us": time_us}
        add("alias_changes", **key, **move, actor="a", reason="why")
