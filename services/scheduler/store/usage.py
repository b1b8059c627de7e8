"""What projects and jobs were given, on disk. A part of an attempt is added once: in the transaction that ends it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, or_, select, update

from services.scheduler.jobs import LIVE_ATTEMPT, TERMINAL, JobState
from services.scheduler.planning.shares import decayed, given
from services.scheduler.queues.accounts import Books, Usage, device_ms, first_hour, joules
from services.scheduler.queues.budgets import HOUR_MS, NOTHING_SPENT, Spent
from services.scheduler.queues.limits import LONGEST_WINDOW_HOURS
from services.scheduler.queues.periods import bounds
from services.scheduler.records import Attempt, Job
from services.scheduler.store import changes
from services.scheduler.store import queues as queue_store
from services.scheduler.store.tables import attempts, jobs, usage, usage_hours
from services.scheduler.store.transaction import Transaction

T = TypeVar("T")


def charge(tx: Transaction, attempt: Attempt) -> None:
    """Adds a part of an attempt that has just ended to its job and its project.

    Args:
        tx: The transaction that ended it: it must have changed the row, so that nothing is added twice.
        attempt: As it was until now.
    """
    time_ms, energy = device_ms(attempt, tx.now_ms), joules(attempt, tx.now_ms)
    more = {"of_job": attempt.job, "of_time": time_ms, "of_energy": energy, **changes.stamped(tx)}
    tx.connection.execute(_CHARGE, more)
    project = attempt.name.project
    _add(tx, project, attempt, Spent(device_ms=time_ms, joules=energy))
    for hour, hour_ms in by_hour(attempt, tx.now_ms):
        if hour >= _oldest(tx):
            _add_hour(tx, project, hour, Spent(device_ms=hour_ms, joules=energy * hour_ms / time_ms))


def _oldest(tx: Transaction) -> int:
    """Returns the first hour that is kept."""
    return tx.now_ms // HOUR_MS - LONGEST_WINDOW_HOURS


_CHARGE = (
    update(jobs)
    .where(jobs.c.number == bindparam("of_job"))
    .values(
        attained_ms=jobs.c.attained_ms + bindparam("of_time"),
        joules=jobs.c.joules + bindparam("of_energy"),
        **changes.STAMP,
    )
)
_FORGET = delete(usage_hours).where(
    usage_hours.c.project == bindparam("of_project"), usage_hours.c.hour < bindparam("of_hour")
)


def _add(tx: Transaction, project: str, attempt: Attempt, more: Spent) -> None:
    row = tx.connection.execute(_OF_PROJECT, {"of_project": project}).one_or_none()
    from_ms = min(attempt.create_ms, tx.now_ms)
    fresh_ms = given(attempt.slots, from_ms, tx.now_ms, tx.now_ms)
    if row is None:
        values = {"decayed_ms": fresh_ms, "as_of_ms": tx.now_ms, "device_ms": round(more.device_ms)}
        tx.connection.execute(insert(usage).values(project=project, joules=more.joules, **values))
        return
    # A clock that went back makes nothing younger than it is.
    as_of_ms = max(row.as_of_ms, tx.now_ms)
    values = {
        "decayed_ms": decayed(row.decayed_ms, as_of_ms - row.as_of_ms) + fresh_ms,
        "as_of_ms": as_of_ms,
        "device_ms": row.device_ms + round(more.device_ms),
        "joules": row.joules + more.joules,
    }
    tx.connection.execute(_ADD, {"of_project": project, **values})


_OF_PROJECT = select(usage).where(usage.c.project == bindparam("of_project")).with_for_update()
_ADD = update(usage).where(usage.c.project == bindparam("of_project"))


def by_hour(attempt: Attempt, now_ms: int) -> Iterator[tuple[int, int]]:
    """Yields the hours that an attempt's part held its devices in, and the device-milliseconds in each."""
    at_ms = attempt.create_ms
    while at_ms < now_ms:
        hour = at_ms // HOUR_MS
        until_ms = min(now_ms, (hour + 1) * HOUR_MS)
        yield hour, attempt.slots * (until_ms - at_ms)
        at_ms = until_ms


def _add_hour(tx: Transaction, project: str, hour: int, spent: Spent) -> None:
    values = {"device_ms": round(spent.device_ms), "joules": spent.joules}
    more = {"of_project": project, "of_hour": hour, "of_time": values["device_ms"], "of_energy": spent.joules}
    if tx.connection.execute(_ADD_HOUR, more).rowcount == 0:
        tx.connection.execute(_FORGET, {"of_project": project, "of_hour": _oldest(tx)})  # once an hour is enough
        tx.connection.execute(insert(usage_hours).values(project=project, hour=hour, **values))


_ADD_HOUR = (
    update(usage_hours)
    .where(usage_hours.c.project == bindparam("of_project"), usage_hours.c.hour == bindparam("of_hour"))
    .values(
        device_ms=usage_hours.c.device_ms + bindparam("of_time"), joules=usage_hours.c.joules + bindparam("of_energy")
    )
)


def books(connection: Connection, now_ms: int, project: str | None = None) -> Books:
    """Returns what is stored of queues and usage: of all projects, or of one."""
    limits = queue_store.of_projects(connection, project)
    windows = {name: each.window_hours for name, each in limits.items() if each.window_hours}
    within = _in_windows(connection, windows, now_ms) if windows else {}
    periods = {name: each.budget.period for name, each in limits.items() if each.budget.period is not None}
    spent = _in_periods(connection, {name: bounds(each, now_ms) for name, each in periods.items()}) if periods else {}
    query = _USAGE if project is None else _USAGE.where(usage.c.project == project)
    rows = {row.project: row for row in connection.execute(query)}
    return Books(
        limits=limits,
        usage={
            name: Usage(
                decayed_ms=row.decayed_ms,
                as_of_ms=row.as_of_ms,
                spent=Spent(device_ms=float(row.device_ms), joules=row.joules),
                window_ms=within.get(name, 0),
                period_spent=spent.get(name, NOTHING_SPENT),
            )
            for name, row in rows.items()
        },
    )


_USAGE = select(usage)


def _in_windows(connection: Connection, windows: Mapping[str, int], now_ms: int) -> dict[str, int]:
    """Returns the device-milliseconds of ended attempts in each project's window, by whole hours, this one included."""
    within = [
        and_(usage_hours.c.project.in_(names), usage_hours.c.hour >= first_hour(now_ms, hours))
        for hours, names in _turned(windows).items()
    ]
    query = (
        select(usage_hours.c.project, func.sum(usage_hours.c.device_ms).label("device_ms"))
        .where(or_(*within))
        .group_by(usage_hours.c.project)
    )
    return {row.project: int(row.device_ms) for row in connection.execute(query)}


def _in_periods(connection: Connection, periods: Mapping[str, tuple[int, int]]) -> dict[str, Spent]:
    """Returns what ended attempts of projects were given in a time of whole hours each."""
    hours = usage_hours.c.hour
    within = [
        and_(usage_hours.c.project.in_(names), hours >= start_ms // HOUR_MS, hours < end_ms // HOUR_MS)
        for (start_ms, end_ms), names in _turned(periods).items()
    ]
    sums = (func.sum(usage_hours.c[name]).label(name) for name in ("device_ms", "joules"))
    query = select(usage_hours.c.project, *sums).where(or_(*within)).group_by(usage_hours.c.project)
    return {row.project: Spent(device_ms=float(row.device_ms), joules=row.joules) for row in connection.execute(query)}


def _turned(terms: Mapping[str, T]) -> dict[T, list[str]]:
    """Returns the projects of each term: SQLite takes no thousand conditions beside each other."""
    found: dict[T, list[str]] = {}
    for name, term in terms.items():
        found.setdefault(term, []).append(name)
    return found


def job_counts(connection: Connection) -> dict[str, dict[JobState, int]]:
    """Returns how many jobs that have not ended each project has, by state."""
    known = [str(state) for state in JobState if state not in TERMINAL]
    query = (
        select(jobs.c.project, jobs.c.state, func.count())
        .where(jobs.c.state.in_(known))
        .group_by(jobs.c.project, jobs.c.state)
    )
    found: dict[str, dict[JobState, int]] = {}
    for project, state, count in connection.execute(query):
        found.setdefault(project, {})[JobState(state)] = count
    return found


def jobs_in(connection: Connection, project: str, states: Collection[JobState]) -> int:
    """Returns how many jobs of a project are in some states."""
    query = select(func.count()).where(jobs.c.project == project, jobs.c.state.in_([str(state) for state in states]))
    return int(connection.execute(query).scalar_one())


def with_running(connection: Connection, found: Sequence[Job], now_ms: int) -> list[Job]:
    """Returns jobs with what their running attempts have spent on top of what ended ones were given."""
    numbers = [job.number for job in found]
    query = select(attempts).where(
        attempts.c.job.in_(numbers), attempts.c.state.in_([str(state) for state in LIVE_ATTEMPT])
    )
    more: dict[int, Spent] = {}
    for row in connection.execute(query):
        time_ms = row.slots * max(0, now_ms - row.create_ms)
        energy = row.joules or row.watts * time_ms / 1000
        more[row.job] = more.get(row.job, NOTHING_SPENT).plus(time_ms, energy)
    return [
        replace(job, spent=job.spent.plus(more[job.number].device_ms, more[job.number].joules))
        if job.number in more
        else job
        for job in found
    ]
