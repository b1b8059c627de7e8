"""Empty SQLite databases with the newest schema, copied in place of made: all revisions take longer than most tests.

That a service makes its own from nothing is seen by the tests of its process and by those of its migrations.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from services.grpckit.database import Database

FILES = {"registry": "registry.sqlite", "scheduler": "scheduler.db", "inference": "inference.sqlite"}
"""Where each service has its database, below its data folder."""


def lay_empty(service: str, folder: Path) -> None:
    """Puts an empty database where a service looks for its own, unless one is there."""
    path = folder / FILES[service]
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_content(service))


@functools.cache
def _content(service: str) -> bytes:
    migrations, head = schema_of(service)
    with tempfile.TemporaryDirectory() as folder:
        made = Database(Path(folder, "made"), migrations=migrations, schema_head=head, service=service)
        made.open()
        made.close()
        return Path(folder, "made").read_bytes()


def schema_of(service: str) -> tuple[Path, str]:
    """Returns the folder of a service's revisions, and the newest one."""
    if service == "registry":
        from services.registry.tables import MIGRATIONS, SCHEMA_HEAD

        return MIGRATIONS, SCHEMA_HEAD
    if service == "scheduler":
        from services.scheduler import service as scheduler

        return scheduler.MIGRATIONS, scheduler.SCHEMA_HEAD
    from services.inference import store

    return store.MIGRATIONS, store.SCHEMA_HEAD
