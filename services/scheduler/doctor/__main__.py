"""`python -m services.scheduler.doctor [FILE]`: whether a scheduler's database keeps what it promises.

FILE is a copy of `scheduler.db`, or the file itself while the scheduler runs or stands still; without one, the
PostgreSQL database of TUNEFORGE_SCHEDULER_DATABASE_URL is read. Nothing is written. Exit code: 0 sound, 1 something is
wrong, 2 it cannot be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pysqlite3
from sqlalchemy import Engine, create_engine, event, func, select
from sqlalchemy.exc import SQLAlchemyError

from services.grpckit.database import PostgresAddress
from services.grpckit.settings import Environment, SettingsError
from services.scheduler.doctor import Finding, examine
from services.scheduler.store.tables import jobs


class Unreadable(Exception):
    """There is no database to look at."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what is wrong; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m services.scheduler.doctor", description="Whether a scheduler's database keeps its promises."
    )
    parser.add_argument("file", nargs="?", type=Path, help="scheduler.db; default: the PostgreSQL database of settings")
    parser.add_argument("--json", action="store_true", help="one JSON object in place of lines")
    asked = parser.parse_args(arguments)
    try:
        count, findings = look(_engine(asked.file))
    except (Unreadable, SettingsError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except SQLAlchemyError as error:
        problem = str(getattr(error, "orig", error)).strip()
        sys.stderr.write(f"it cannot be read as a scheduler's database of this release: {problem}\n")
        return 2
    if asked.json:
        sys.stdout.write(json.dumps({"jobs": count, "findings": [asdict(each) for each in findings]}, indent=2) + "\n")
    else:
        for finding in findings:
            sys.stdout.write(f"{finding}\n")
        sys.stdout.write(f"{count} jobs, {len(findings)} findings\n")
    return 1 if findings else 0


def look(engine: Engine) -> tuple[int, list[Finding]]:
    """Returns how many jobs a database has and what is wrong with it, from one snapshot."""
    try:
        with engine.connect() as connection, connection.begin():
            count = connection.execute(select(func.count()).select_from(jobs)).scalar_one()
            return count, examine(connection)
    finally:
        engine.dispose()


def _engine(file: Path | None) -> Engine:
    if file is None:
        return _server()
    if not file.is_file():
        raise Unreadable(f"{file} is no file; name a scheduler.db or a copy of one")
    return read_only(file)


def read_only(file: Path) -> Engine:
    """Returns connections to a SQLite file that cannot change it, one snapshot a transaction."""
    location = f"{file.resolve().as_uri()}?mode=ro"
    engine = create_engine(
        "sqlite+pysqlite://",
        module=pysqlite3,
        creator=lambda: pysqlite3.connect(location, uri=True, isolation_level=None),
    )
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def _server() -> Engine:
    reader = Environment()
    address = PostgresAddress.from_env("scheduler", reader)
    reader.finish()
    if address is None:
        raise Unreadable("name a scheduler.db, or set TUNEFORGE_SCHEDULER_DATABASE_URL for a database on a server")
    from services.grpckit.database.postgres import Postgres  # the driver is only for those who use it

    return Postgres(address).open_readers()


if __name__ == "__main__":
    sys.exit(main())
