"""What run times are told from: predictions, the newest events of a run, and how long finished runs took."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, select

from services.scheduler.store.measured_runs import NEWEST
from services.scheduler.store.tables import chunks, jobs, measured_runs

CHUNKS = 20
"""Newest chunks of a job's log in which steps are looked for; each has what came in a moment, at most 100 events."""
AT_ONCE = 500


def estimates(connection: Connection, numbers: Collection[int]) -> dict[int, bytes | None]:
    """Returns the stored predictions of jobs, by number."""
    ordered = sorted(numbers)
    found: dict[int, bytes | None] = {}
    for begin in range(0, len(ordered), AT_ONCE):
        some = ordered[begin : begin + AT_ONCE]
        rows = connection.execute(select(jobs.c.number, jobs.c.resource_estimate).where(jobs.c.number.in_(some)))
        found.update({row.number: row.resource_estimate for row in rows})
    return found


def newest_events(connection: Connection, job: int) -> list[bytes]:
    """Returns the newest chunks of a job's log, in order."""
    query = select(chunks.c.payload).where(chunks.c.job == job).order_by(chunks.c.first_seq.desc()).limit(CHUNKS)
    return list(connection.execute(query).scalars())[::-1]


def finished_seconds(connection: Connection) -> list[float]:
    """Returns how long the steps of the newest finished runs took, in seconds, newest first."""
    query = select(measured_runs.c.seconds).order_by(measured_runs.c.job.desc()).limit(NEWEST)
    return [float(each) for each in connection.execute(query).scalars()]
