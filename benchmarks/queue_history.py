"""Puts many ended jobs into a scheduler's database, as a year of work would; no server runs meanwhile."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, insert, select

from services.grpckit.database import Database, PostgresAddress
from services.scheduler.service import MIGRATIONS, SCHEMA_HEAD
from services.scheduler.store.tables import attempts, chunks, jobs

JOBS_PER_COMMIT = 5000
CHUNKS_PER_JOB = 2


def add_ended_jobs(data: Path, count: int, postgres: PostgresAddress | None = None) -> None:
    """Adds ended jobs, each with an attempt and a short log, in the likeness of the newest job.

    Args:
        data: The scheduler's data folder.
        count: How many.
        postgres: The database on a server; None: SQLite in the folder.
    """
    database = Database(
        data / "scheduler.db", migrations=MIGRATIONS, schema_head=SCHEMA_HEAD, service="scheduler", postgres=postgres
    )
    database.open()
    try:
        for start in range(0, count, JOBS_PER_COMMIT):
            size = min(JOBS_PER_COMMIT, count - start)
            database.write_sync(lambda connection, size=size: _add(connection, size))  # type: ignore[misc]
    finally:
        database.close()


def _add(connection: Connection, count: int) -> None:
    query = select(jobs).order_by(jobs.c.number.desc()).limit(1)
    newest: dict[str, Any] = dict(connection.execute(query).mappings().one())
    token = connection.execute(select(func.coalesce(func.max(attempts.c.token), 0))).scalar_one()
    first = newest["number"] + 1
    ended = newest | {
        "state": "SUCCEEDED",
        "attempt": 1,
        "end_ms": newest["create_ms"] + 1,
        "latest_seq": CHUNKS_PER_JOB,
    }
    numbers = range(first, first + count)
    rows = [
        ended
        | {"number": number, "uid": secrets.randbits(63), "job_id": f"ended-{number}", "token": token + 1 + offset}
        for offset, number in enumerate(numbers)
    ]
    connection.execute(insert(jobs), rows)
    connection.execute(
        insert(attempts),
        [
            {
                "job": row["number"],
                "attempt": 1,
                "node_rank": 0,
                "nodes": 1,
                "node": "quick-0",
                "token": row["token"],
                "state": "SUCCEEDED",
                "is_confirmed": True,
                "is_closed": True,
                "create_ms": row["create_ms"],
            }
            for row in rows
        ],
    )
    log = [
        {"job": number, "first_seq": seq, "last_seq": seq, "payload": b"x" * 400}
        for number in numbers
        for seq in range(1, CHUNKS_PER_JOB + 1)
    ]
    connection.execute(insert(chunks), log)
