"""What every project was given at one moment, running attempts included, and what follows from it. Pure.

Device time is counted when a part of an attempt ends, in the transaction that ends it (`store/usage.py`), and live from
the rows of those that have not. A part is one or the other, so it counts once, whatever is restarted in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from services.scheduler.jobs import HELD, LEAVING, LIVE_ATTEMPT, JobState
from services.scheduler.planning.queue import Project
from services.scheduler.planning.shares import decayed, given
from services.scheduler.queues.budgets import HOUR_MS, NOTHING_HELD, NOTHING_SPENT, Held, Spent, figure, overrun
from services.scheduler.queues.limits import DEFAULT_LIMITS, LEAST_WEIGHT, Limits
from services.scheduler.queues.periods import bounds, shown
from services.scheduler.records import ActiveJob, Attempt

_PAUSABLE = (HELD - LEAVING - {JobState.CANCELLING}) | {JobState.QUEUED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What ended attempts of a project were given, as it is stored."""

    decayed_ms: float = 0.0
    """Device-milliseconds, older ones counting less, at `as_of_ms`."""
    as_of_ms: int = 0
    spent: Spent = NOTHING_SPENT
    """Everything since the beginning."""
    window_ms: int = 0
    """Device-milliseconds in the window of the queue; 0 without one."""
    period_spent: Spent = NOTHING_SPENT
    """In the period of the project's budget; nothing without one."""


NO_USAGE = Usage()


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What is stored of queues and usage, by project; those that are missing have the defaults."""

    limits: Mapping[str, Limits] = field(default_factory=dict)
    usage: Mapping[str, Usage] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A project at one moment."""

    limits: Limits = DEFAULT_LIMITS
    usage_ms: float = 0.0
    """Device-milliseconds, older ones counting less."""
    spent: Spent = NOTHING_SPENT
    """Everything since the beginning."""
    window_ms: float = 0.0
    """Device-milliseconds in the window of the queue."""
    held: Held = NOTHING_HELD
    """What its attempts hold."""
    period_spent: Spent = NOTHING_SPENT
    """What was spent since `period_ms[0]`."""
    period_ms: tuple[int, int] | None = None
    """When the period of its budget began and when the next one begins; None: it has none."""

    @property
    def budget_spent(self) -> Spent:
        """What counts as spent of its budget."""
        return self.spent if self.period_ms is None else self.period_spent


@dataclass(frozen=True, slots=True, kw_only=True)
class SpentJob:
    """A job that is to be paused because a budget is spent."""

    job: int
    why: str
    """As a sentence."""
    goes_on_ms: int | None = None
    """When the next period of the budget begins; None: it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """All projects at one moment."""

    accounts: Mapping[str, Account] = field(default_factory=dict)
    projects: Mapping[str, Project] = field(default_factory=dict)
    """The same for the planner."""
    spent: tuple[SpentJob, ...] = ()
    """Jobs whose budget, or whose project's, is spent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """By what is reckoned."""

    now_ms: int
    ahead_ms: float = 0.0
    """Time until the next look: what is spent until then counts as spent."""


def device_ms(attempt: Attempt, now_ms: int) -> int:
    """Returns the device time that a part of an attempt was given so far, or until its end."""
    until_ms = now_ms if attempt.end_ms is None else attempt.end_ms
    return attempt.slots * max(0, until_ms - attempt.create_ms)


def joules(attempt: Attempt, now_ms: int) -> float:
    """Returns the energy of a part of an attempt: by its node's counters, else by the predicted power, else none."""
    return attempt.joules or attempt.watts * device_ms(attempt, now_ms) / 1000


def open_books(
    books: Books,
    jobs: Iterable[ActiveJob],
    attempts: Iterable[Attempt],
    terms: Terms,
    projects: Iterable[str] = (),
) -> Accounts:
    """Returns how all projects stand.

    Args:
        books: What is stored.
        jobs: Jobs that have not ended.
        attempts: At least all parts of attempts that have not ended.
        terms: By what is reckoned.
        projects: Further projects to be told of.
    """
    live = [attempt for attempt in attempts if attempt.state in LIVE_ATTEMPT]
    by_project: dict[str, list[Attempt]] = {}
    by_job: dict[int, list[Attempt]] = {}
    for attempt in live:
        by_project.setdefault(attempt.name.project, []).append(attempt)
        by_job.setdefault(attempt.job, []).append(attempt)
    active = list(jobs)
    names = (
        {job.name.project for job in active} | set(projects) | set(by_project) | set(books.limits) | set(books.usage)
    )
    accounts = {
        name: _account(
            books.limits.get(name, DEFAULT_LIMITS), books.usage.get(name, NO_USAGE), by_project.get(name, ()), terms
        )
        for name in sorted(names)
    }
    return Accounts(
        accounts=accounts,
        projects={name: _project(account, terms) for name, account in accounts.items()},
        spent=tuple(_spent_jobs(active, accounts, by_job, terms)),
    )


def first_hour(now_ms: int, window_hours: int) -> int:
    """Returns the first hour of a window, as hours since 1970: it moves on by whole hours, this one is its last."""
    return now_ms // HOUR_MS - window_hours + 1


def _account(limits: Limits, usage: Usage, live: Iterable[Attempt], terms: Terms) -> Account:
    now_ms = terms.now_ms
    usage_ms = decayed(usage.decayed_ms, max(0, now_ms - usage.as_of_ms))
    spent, held, window_ms = usage.spent, NOTHING_HELD, float(usage.window_ms)
    window_start_ms = first_hour(now_ms, limits.window_hours) * HOUR_MS
    period_ms = None if limits.budget.period is None else bounds(limits.budget.period, now_ms)
    period_spent = usage.period_spent
    for attempt in live:
        from_ms = min(attempt.create_ms, now_ms)
        usage_ms += given(attempt.slots, from_ms, now_ms, now_ms)
        spent = spent.plus(device_ms(attempt, now_ms), joules(attempt, now_ms))
        held = held.plus(attempt.slots, attempt.watts * attempt.slots)
        if limits.window_hours:
            window_ms += attempt.slots * max(0, now_ms - max(from_ms, window_start_ms))
        if period_ms is not None and (whole_ms := device_ms(attempt, now_ms)):
            part_ms = attempt.slots * (now_ms - max(from_ms, period_ms[0]))
            period_spent = period_spent.plus(part_ms, joules(attempt, now_ms) * part_ms / whole_ms)
    return Account(
        limits=limits,
        usage_ms=usage_ms,
        spent=spent,
        window_ms=window_ms,
        held=held,
        period_spent=period_spent,
        period_ms=period_ms,
    )


def _project(account: Account, terms: Terms) -> Project:
    limits = account.limits
    return Project(
        weight=max(limits.weight, LEAST_WEIGHT),
        usage_ms=account.usage_ms,
        max_devices=limits.max_devices or None,
        max_jobs=limits.max_jobs or None,
        guaranteed_devices=limits.guaranteed_devices,
        held=holding(account, terms),
    )


def holding(account: Account, terms: Terms) -> str:
    """Returns why nothing of a project starts now, as a sentence; empty: it may."""
    limits = account.limits
    if limits.is_paused:
        return "Its queue is paused: nothing new starts."
    if why := _project_overrun(account, terms):
        return why
    if limits.window_device_ms and account.window_ms >= limits.window_device_ms:
        had, may = account.window_ms / HOUR_MS, limits.window_device_ms / HOUR_MS
        return (
            f"Its project was given {figure(had)} device-hours in the last {limits.window_hours} hours, "
            f"{figure(may)} are allowed."
        )
    return ""


def _project_overrun(account: Account, terms: Terms) -> str:
    """Returns that the budget of a project is spent, and until when, as a sentence; empty: it is not."""
    budget = account.limits.budget
    why = overrun(budget, account.budget_spent, held=account.held, ahead_ms=terms.ahead_ms)
    if why and account.period_ms is not None and budget.period is not None:
        why += f" in this {budget.period.lower()}, the next one begins on {shown(account.period_ms[1])}"
    return why and f"The budget of its project is spent: {why}."


def _spent_jobs(
    jobs: Iterable[ActiveJob], accounts: Mapping[str, Account], by_job: Mapping[int, list[Attempt]], terms: Terms
) -> Iterable[SpentJob]:
    over = {name: _project_overrun(account, terms) for name, account in accounts.items()}
    for job in jobs:
        if job.state not in _PAUSABLE:
            continue
        if job.budget is not None and (why := _job_overrun(job, by_job.get(job.number, ()), terms)):
            yield SpentJob(job=job.number, why=f"Its budget is spent: {why}.")
        elif job.state is not JobState.QUEUED and (why := over[job.name.project]):
            # Those of it that wait are held in the queue instead: they begin by themselves once the budget is raised.
            period_ms = accounts[job.name.project].period_ms
            yield SpentJob(job=job.number, why=why, goes_on_ms=None if period_ms is None else period_ms[1])


def _job_overrun(job: ActiveJob, live: Iterable[Attempt], terms: Terms) -> str:
    if job.budget is None:
        return ""
    spent, held = job.spent, NOTHING_HELD
    for attempt in live:
        spent = spent.plus(device_ms(attempt, terms.now_ms), joules(attempt, terms.now_ms))
        held = held.plus(attempt.slots, attempt.watts * attempt.slots)
    return overrun(job.budget, spent, held=held, ahead_ms=terms.ahead_ms)
