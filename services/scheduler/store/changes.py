"""One order of the changes of all jobs: who follows it reads no number before every smaller one is there.

The number comes from one row that is changed in the writing transaction. A second transaction waits for that row until
the first one is committed. So numbers become visible in their order, on PostgreSQL too, and what was rolled back leaves
no hole that a reader could wait for.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import BigInteger, Connection, bindparam, case, func, insert, select, update

from services.scheduler.store.tables import counters, jobs
from services.scheduler.store.transaction import Transaction

_CHANGE = "change"


def number(tx: Transaction) -> int:
    """Returns the number of the change that this transaction is, the same at each call."""
    if not tx.change:
        tx.change.append(_next(tx.connection))
    return tx.change[0]


def _columns(now: Any) -> dict[str, Any]:
    return {
        "change_seq": now,
        "previous_change": case((jobs.c.change_seq == now, jobs.c.previous_change), else_=jobs.c.change_seq),
        "first_change": case((jobs.c.first_change == 0, now), else_=jobs.c.first_change),
    }


STAMP = _columns(bindparam("of_change", type_=BigInteger))
"""The columns of a job that say that a transaction has changed it, for statements that are made once; see `stamped`."""


def stamped(tx: Transaction) -> dict[str, int]:
    """Returns the parameters of `STAMP` in this transaction."""
    return {"of_change": number(tx)}


def stamp(tx: Transaction) -> dict[str, Any]:
    """Returns the columns of `STAMP` for this transaction, for statements that are made each time."""
    return _columns(number(tx))


def touch(tx: Transaction, numbers: Collection[int]) -> None:
    """Marks jobs as changed whose log does not tell of it: what their resource shows is another thing now."""
    if numbers:
        tx.connection.execute(_TOUCH, {"of_jobs": list(numbers), **stamped(tx)})
        tx.touched.update(numbers)


_TOUCH = update(jobs).where(jobs.c.number.in_(bindparam("of_jobs", expanding=True))).values(**STAMP)


def newest(connection: Connection) -> int:
    """Returns the number of the newest change; 0: there was none."""
    found = connection.execute(_NEWEST).scalar_one_or_none()
    return _of_jobs(connection) if found is None else int(found)


# Made once: it takes longer to make them than to run them.
_NEWEST = select(counters.c.value).where(counters.c.name == _CHANGE)
_GROW = (
    update(counters).where(counters.c.name == _CHANGE).values(value=counters.c.value + 1).returning(counters.c.value)
)


def _next(connection: Connection) -> int:
    grown = connection.execute(_GROW).scalar_one_or_none()
    if grown is None:
        grown = _of_jobs(connection) + 1
        connection.execute(insert(counters).values(name=_CHANGE, value=grown))
    return int(grown)


def _of_jobs(connection: Connection) -> int:
    """Returns the newest change by the jobs alone: a database of an older release has no counter yet."""
    return int(connection.execute(select(func.coalesce(func.max(jobs.c.change_seq), 0))).scalar_one())
