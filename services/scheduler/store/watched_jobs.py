"""Jobs by the order of their changes, for those who follow it."""

from __future__ import annotations

from sqlalchemy import Connection, or_

from services.scheduler.records import Job
from services.scheduler.store.jobs import job_of, whole_rows
from services.scheduler.store.tables import jobs


def not_changed_since(connection: Connection, change: int, after: int, limit: int) -> list[Job]:
    """Returns jobs whose newest change is at most `change`, by number, those beyond number `after`."""
    query = whole_rows().where(jobs.c.change_seq <= change, jobs.c.number > after).order_by(jobs.c.number).limit(limit)
    return [job_of(row) for row in connection.execute(query)]


def changed_after(connection: Connection, place: tuple[int, int], limit: int) -> list[Job]:
    """Returns jobs in the order of their newest changes, those beyond a place: a change, and a job's number in it."""
    change, number = place
    is_beyond = or_(jobs.c.change_seq > change, jobs.c.number > number)
    query = whole_rows().where(jobs.c.change_seq >= change, is_beyond)
    return [job_of(row) for row in connection.execute(query.order_by(jobs.c.change_seq, jobs.c.number).limit(limit))]
