"""Jobs that are being taken up: who dies over the same one again and again knows which.

`jobs.handled` is twice the number of the scheduler's deaths while it took the job up, and one more while it does. It is
written with what is due next (an attempt that was placed, a result that is to be registered), and is 0 again once what
is stored of the job was read and used.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, case, select, update

from services.scheduler.jobs import TERMINAL
from services.scheduler.store.tables import jobs
from services.scheduler.store.transaction import Transaction

MARKED: Any = case((jobs.c.handled % 2 == 0, jobs.c.handled + 1), else_=jobs.c.handled)
"""Value of `handled` while a job is taken up."""


def mark(tx: Transaction, job: int) -> None:
    """Notes that a job is being taken up."""
    tx.connection.execute(update(jobs).where(jobs.c.number == job).values(handled=MARKED))


def handled(connection: Connection, job: int) -> int:
    """Returns the mark of a job."""
    found = connection.execute(select(jobs.c.handled).where(jobs.c.number == job)).scalar_one_or_none()
    return found or 0


def clear(tx: Transaction, job: int) -> None:
    """Notes that taking a job up went well."""
    tx.connection.execute(update(jobs).where(jobs.c.number == job).values(handled=0))


def count_deaths(tx: Transaction, most: int) -> list[int]:
    """Counts the death of the process before this one against the jobs that it took up.

    Returns:
        Jobs that have not ended and have seen `most` deaths.
    """
    tx.connection.execute(update(jobs).where(jobs.c.handled % 2 == 1).values(handled=jobs.c.handled + 1))
    ended = [str(state) for state in TERMINAL]
    found = select(jobs.c.number).where(jobs.c.handled >= 2 * most, jobs.c.state.not_in(ended))
    return list(tx.connection.execute(found).scalars())


def leave(tx: Transaction) -> None:
    """Notes that this process ends as it should: nobody takes anything up any more."""
    tx.connection.execute(update(jobs).where(jobs.c.handled % 2 == 1).values(handled=jobs.c.handled - 1))
