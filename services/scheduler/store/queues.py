"""Queues on disk. A project without a row has the default queue with the default limits."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from services.scheduler import wire
from services.scheduler.queues.budgets import NO_BUDGET, Budget
from services.scheduler.queues.limits import DEFAULT_LIMITS, DEFAULT_QUEUE, Limits
from services.scheduler.store import changes
from services.scheduler.store.tables import jobs, queues
from services.scheduler.store.transaction import Transaction

_QUEUES = select(queues).where(queues.c.queue == DEFAULT_QUEUE)


def of_projects(connection: Connection, project: str | None = None) -> dict[str, Limits]:
    """Returns the limits that were set, by project: of all projects, or of one."""
    query = _QUEUES if project is None else _QUEUES.where(queues.c.project == project)
    return {row.project: _limits(row) for row in connection.execute(query)}


def find(connection: Connection, project: str, *, locks: bool = False) -> Limits:
    """Returns the limits of a project's queue.

    Args:
        connection: To the database.
        project: Its id.
        locks: Lets nobody else read them with a lock until this transaction is over, where the row is there.
    """
    row = connection.execute(_FIND_LOCKED if locks else _FIND, {"project": project}).one_or_none()
    return DEFAULT_LIMITS if row is None else _limits(row)


# Made once: every submit runs one of them.
_FIND = _QUEUES.where(queues.c.project == bindparam("project"))
_FIND_LOCKED = _FIND.with_for_update()


def keep(tx: Transaction, project: str, limits: Limits) -> None:
    """Stores the limits of a project's queue; their revision says which change of it this is, from 1 on."""
    values = {
        "weight": limits.weight,
        "max_devices": limits.max_devices,
        "max_jobs": limits.max_jobs,
        "max_waiting_jobs": limits.max_waiting_jobs,
        "window_device_ms": limits.window_device_ms,
        "window_hours": limits.window_hours,
        "guaranteed_devices": limits.guaranteed_devices,
        "budget": None if limits.budget.is_empty else wire.budget_bytes(limits.budget),
        "is_paused": limits.is_paused,
        "revision": limits.revision,
        "update_ms": tx.now_ms,
    }
    if limits.revision == 1:
        tx.connection.execute(insert(queues).values(project=project, queue=DEFAULT_QUEUE, **values))
        return
    mine = (queues.c.project == project, queues.c.queue == DEFAULT_QUEUE)
    tx.connection.execute(update(queues).where(*mine).values(**values))


def _limits(row: Row[Any]) -> Limits:
    return Limits(
        weight=row.weight,
        max_devices=row.max_devices,
        max_jobs=row.max_jobs,
        max_waiting_jobs=row.max_waiting_jobs,
        window_device_ms=row.window_device_ms,
        window_hours=row.window_hours,
        guaranteed_devices=row.guaranteed_devices,
        budget=NO_BUDGET if row.budget is None else wire.budget_from_bytes(row.budget),
        is_paused=row.is_paused,
        revision=row.revision,
        update_ms=row.update_ms,
    )


def allow_job(tx: Transaction, job: int, budget: Budget | None) -> None:
    """Sets what a job may spend; None: no limit. The loop looks again."""
    stored = None if budget is None else wire.budget_bytes(budget)
    tx.connection.execute(update(jobs).where(jobs.c.number == job).values(budget=stored))
    changes.touch(tx, [job])
    tx.turned.add(job)
