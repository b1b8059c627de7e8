"""Brings a database's schema to its head, one revision a transaction.

Imported only when a schema is missing or behind, because Alembic costs a third of a second that a restart should not
pay. Revisions are ordinary Alembic files under `<service>/migrations/versions`; there is no `env.py`, since the
service itself is the only thing that ever runs them.
"""

from __future__ import annotations

from pathlib import Path

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection


def known_revisions(folder: Path) -> list[str]:
    """Returns the ids of all revisions in a migrations folder, oldest first."""
    script = ScriptDirectory(str(folder))
    return [revision.revision for revision in reversed(list(script.walk_revisions()))]


def upgrade(connection: Connection, folder: Path, current: str | None, target: str = "head") -> None:
    """Applies every revision that is newer than the current one, up to a target.

    Each revision and its mark are one transaction, so a process killed in the middle goes on where it was.

    Args:
        connection: Connection without an open transaction.
        folder: Folder that holds `versions/`.
        current: Revision of the schema as it is; None for an empty database.
        target: Revision to stop at; tests make the database of an older release with it.
    """
    script = ScriptDirectory(str(folder))
    pending = reversed(list(script.iterate_revisions(target, current or "base")))
    for revision in pending:
        with connection.begin():
            context = MigrationContext.configure(connection)
            with Operations.context(context):
                revision.module.upgrade()
            context.stamp(script, revision.revision)
