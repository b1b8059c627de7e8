"""Migrations in a process that is killed before a statement that changes something."""

from __future__ import annotations

import itertools
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from services.grpckit.database import PostgresAddress
from tests.support.killed_at import FORKS
from tests.support.released import ServiceSchema

_CHANGES = ("CREATE", "ALTER", "INSERT", "UPDATE", "DROP")


def migrate_until(schema: ServiceSchema, path: Path, postgres: PostgresAddress | None, left: int) -> bool:
    """Opens a database in a process that is killed after `left` changes; returns whether it came to its end."""
    hearing, saying = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=_migrate, args=(schema, path, postgres, left, saying))
    with hearing:
        process.start()
        saying.close()
        try:
            is_done = bool(hearing.recv())
        except EOFError:
            is_done = False
    process.join()
    assert process.exitcode == (0 if is_done else -signal.SIGKILL)
    process.close()
    return is_done


def _migrate(
    schema: ServiceSchema, path: Path, postgres: PostgresAddress | None, left: int, saying: Connection
) -> None:
    changes = itertools.count()

    @event.listens_for(Engine, "before_cursor_execute")
    def count(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.lstrip().upper().startswith(_CHANGES) and next(changes) == left:
            os.kill(os.getpid(), signal.SIGKILL)

    database = schema.database(path, postgres)
    database.open()
    database.close()
    saying.send(True)
