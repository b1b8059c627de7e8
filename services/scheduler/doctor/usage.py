"""Checks that device time was counted once.

time.counted   a job was given what its ended attempts held: devices times time, each part once
time.project   a project was given at least what its jobs were given (those that were removed left their part)
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, case, func, select

from services.scheduler.doctor.finding import Finding
from services.scheduler.store.tables import attempts, jobs, usage
from tuneforge.names import JobName, ProjectName


def check(connection: Connection) -> Iterator[Finding]:
    """Yields every job and project whose device time is not what was held."""
    held = {number: int(total) for number, total in connection.execute(_HELD)}
    given: dict[str, int] = {}
    for number, project, job_id, attained_ms, removal in connection.execute(_GIVEN):
        given[project] = given.get(project, 0) + attained_ms
        if removal is not None:
            continue  # its attempts went with it; what it was given counts for its project all the same
        if attained_ms != (wanted := held.get(number, 0)):
            problem = f"its ended attempts held devices for {wanted} ms, {attained_ms} ms are counted"
            yield Finding(rule="time.counted", subject=str(JobName(project, job_id)), problem=problem)
    totals = {row.project: row.device_ms for row in connection.execute(_TOTALS)}
    for project, least in sorted(given.items()):
        if totals.get(project, 0) < least:
            problem = f"its jobs were given {least} ms, {totals.get(project, 0)} ms are counted"
            yield Finding(rule="time.project", subject=str(ProjectName(project)), problem=problem)


_HELD_MS = attempts.c.end_ms - attempts.c.create_ms
# A clock that went back between begin and end gives nothing.
_PART_MS = case((_HELD_MS > 0, attempts.c.slots * _HELD_MS), else_=0)
_HELD = select(attempts.c.job, func.sum(_PART_MS)).where(attempts.c.end_ms.is_not(None)).group_by(attempts.c.job)
_GIVEN = select(jobs.c.number, jobs.c.project, jobs.c.job_id, jobs.c.attained_ms, jobs.c.removal).order_by(
    jobs.c.number
)
_TOTALS = select(usage)
