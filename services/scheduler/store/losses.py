"""The ledger of device time that was lost and saved, on disk: per job, and in all since the beginning."""

from __future__ import annotations

from sqlalchemy import Connection, func, insert, select, update

from services.scheduler.planning.work import Cause, Stretch, reckon
from services.scheduler.records import Attempt, Work
from services.scheduler.store.tables import attempts, counters, jobs
from services.scheduler.store.transaction import Transaction

_COLUMNS = {Cause.PREEMPTED: "lost_preempted_ms", Cause.FAULT: "lost_faults_ms"}
_TOTALS = ("attained_ms", "lost_preempted_ms", "lost_faults_ms", "saved_ms", "preemptions")


def note_end(tx: Transaction, attempt: Attempt, cause: Cause | None) -> None:
    """Notes why an attempt has ended early; one that has made no step has lost all the time that it held."""
    if cause is None:
        return
    parts = attempts.c.job == attempt.job, attempts.c.attempt == attempt.name.attempt
    tx.connection.execute(update(attempts).where(*parts).values(cause=str(cause)))
    more = {"preemptions": 1} if cause is Cause.PREEMPTED else {}
    held = func.sum(attempts.c.slots * (attempts.c.end_ms - attempts.c.create_ms))
    row = tx.connection.execute(select(func.max(attempts.c.first_step_ms).label("first"), held).where(*parts)).one()
    if row.first is None and cause in _COLUMNS:
        more[_COLUMNS[cause]] = max(0, int(row[1] or 0))
    _add(tx, attempt.job, more)


def note_progress(tx: Transaction, attempt: Attempt) -> None:
    """Reckons, once an attempt has made its first step, what the end of the one before has cost and what was saved.

    Args:
        tx: The transaction that keeps the step.
        attempt: The part with rank 0, which had made no step before.
    """
    number = attempt.name.attempt
    mine = attempts.c.job == attempt.job
    now = tx.connection.execute(
        select(attempts).where(mine, attempts.c.attempt == number, attempts.c.node_rank == 0)
    ).one()
    if number == 1 or now.first_step_ms is None:
        return
    before = tx.connection.execute(
        select(attempts)
        .where(mine, attempts.c.attempt < number, attempts.c.node_rank == 0, attempts.c.first_step_ms.is_not(None))
        .order_by(attempts.c.attempt.desc())
        .limit(1)
    ).one_or_none()
    if before is None or not before.cause:
        return
    stretch = Stretch(
        slots=_slots(tx.connection, attempt.job, before.attempt),
        resumed_step=before.resumed_step,
        step=before.step,
        first_step_ms=before.first_step_ms,
        end_ms=before.end_ms if before.end_ms is not None else tx.now_ms,
    )
    lost_ms, saved_ms = reckon(stretch, now.resumed_step)
    restore_ms = _slots(tx.connection, attempt.job, number) * max(0, now.first_step_ms - now.create_ms)
    more = {"saved_ms": saved_ms}
    if (column := _COLUMNS.get(Cause(before.cause))) is not None:
        more[column] = lost_ms + restore_ms
    _add(tx, attempt.job, more)


def _slots(connection: Connection, job: int, number: int) -> int:
    query = select(func.sum(attempts.c.slots)).where(attempts.c.job == job, attempts.c.attempt == number)
    return int(connection.execute(query).scalar_one() or 0)


def _add(tx: Transaction, job: int, more: dict[str, int]) -> None:
    more = {name: count for name, count in more.items() if count}
    if not more:
        return
    tx.connection.execute(
        update(jobs).where(jobs.c.number == job).values(**{name: jobs.c[name] + count for name, count in more.items()})
    )
    for name, count in more.items():
        grown = update(counters).where(counters.c.name == name).values(value=counters.c.value + count)
        if tx.connection.execute(grown).rowcount == 0:
            tx.connection.execute(insert(counters).values(name=name, value=count))


def totals(connection: Connection) -> Work:
    """Returns the sums over all jobs since the beginning, what was held left out: usage has that."""
    return Work(**{row.name: row.value for row in connection.execute(_SUMS)})


_SUMS = select(counters).where(counters.c.name.in_(_TOTALS))


def of_project(connection: Connection, project: str) -> Work:
    """Returns the sums over the jobs of a project."""
    sums = [func.coalesce(func.sum(jobs.c[name]), 0).label(name) for name in _TOTALS]
    row = connection.execute(select(*sums).where(jobs.c.project == project)).one()
    return Work(**{name: int(getattr(row, name)) for name in _TOTALS})
