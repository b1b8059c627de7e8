"""Pauses jobs whose budget is spent, and lets them go on once there is more."""

from __future__ import annotations

from sqlalchemy import select, update

from services.grpckit.errors import Reason, ServiceError
from services.scheduler.jobs import JobState
from services.scheduler.queues.accounts import Terms, open_books
from services.scheduler.queues.budgets import BUDGET_RENEWED, BUDGET_SPENT, Budget, Held, overrun
from services.scheduler.queues.entering import devices_of
from services.scheduler.queues.periods import bounds
from services.scheduler.records import Job
from services.scheduler.store import attempts as attempt_store
from services.scheduler.store import changes, usage
from services.scheduler.store import jobs as job_store
from services.scheduler.store import queues as queue_store
from services.scheduler.store.tables import jobs
from services.scheduler.store.transaction import Transaction

_AHEAD_MS = 1000.0
"""A job that would spend the rest within this time is not worth a start."""


def pause(tx: Transaction, job: int, why: str, goes_on_ms: int | None = None) -> bool:
    """Pauses a job: at once while it is queued, else as soon as its attempt has saved its state.

    Args:
        tx: The transaction.
        job: Its number.
        why: Which budget is spent, as a sentence.
        goes_on_ms: When it goes on by itself; None: it has to be resumed.

    Returns:
        Whether it was changed; a job that has moved on meanwhile is left alone.
    """
    state = job_store.load(tx.connection, job).state
    if state not in {JobState.QUEUED, JobState.STARTING, JobState.RUNNING}:
        return False
    to = JobState.PAUSED if state is JobState.QUEUED else JobState.PAUSING
    values = {"goes_on_ms": goes_on_ms}
    step = job_store.Step(to=to, reason=BUDGET_SPENT, message=why, sources=frozenset({state}), values=values)
    return job_store.advance(tx, job, step)


def renew(tx: Transaction, job: int) -> bool:
    """Queues a job again that was paused for its project's budget; False when it is not paused for that any more."""
    found = tx.connection.execute(select(jobs.c.goes_on_ms).where(jobs.c.number == job)).scalar_one()
    if found is None or found > tx.now_ms:
        return False
    message = "The next period of its project's budget has begun."
    sources = frozenset({JobState.PAUSED})
    step = job_store.Step(to=JobState.QUEUED, reason=BUDGET_RENEWED, message=message, sources=sources)
    return job_store.advance(tx, job, step)


def stay(tx: Transaction, job: Job) -> None:
    """Lets a job that is paused, or about to be, stay so until it is resumed."""
    mine = (jobs.c.number == job.number, jobs.c.goes_on_ms.is_not(None))
    if tx.connection.execute(update(jobs).where(*mine).values(goes_on_ms=None)).rowcount:
        changes.touch(tx, [job.number])


def move_renewals(tx: Transaction, project: str, budget: Budget) -> None:
    """Lets what a project's budget has paused go on when the period ends that it has now; without one as before."""
    if budget.period is None:
        return
    waiting = select(jobs.c.number).where(
        jobs.c.project == project, jobs.c.state.in_(["PAUSING", "PAUSED"]), jobs.c.goes_on_ms.is_not(None)
    )
    numbers = list(tx.connection.execute(waiting).scalars())
    until_ms = bounds(budget.period, tx.now_ms)[1]
    tx.connection.execute(update(jobs).where(jobs.c.number.in_(waiting)).values(goes_on_ms=until_ms))
    changes.touch(tx, numbers)


def allow(tx: Transaction, job: Job, budget: Budget) -> None:
    """Sets what a job may spend from now on, what it has spent included.

    Args:
        tx: The transaction.
        job: Not ended.
        budget: Takes the place of the one before; an empty one limits nothing.
    """
    queue_store.allow_job(tx, job.number, None if budget.is_empty else budget)


def require_left(tx: Transaction, job: Job) -> None:
    """Refuses to let a paused job go on whose budget, or whose project's, is spent.

    Raises:
        ServiceError: BUDGET_SPENT.
    """
    held = Held(devices=devices_of(job.needs))
    if job.budget is not None and (why := overrun(job.budget, job.spent, held=held, ahead_ms=_AHEAD_MS)):
        raise _spent(job, "job", f"the budget of {job.name} is spent: {why}; resume it with a larger one")
    project = job.name.project
    books = usage.books(tx.connection, tx.now_ms, project)
    live = attempt_store.open_ones(tx.connection)
    account = open_books(books, (), live, Terms(now_ms=tx.now_ms), [project]).accounts[project]
    if why := overrun(account.limits.budget, account.budget_spent, held=held, ahead_ms=_AHEAD_MS):
        problem = f"the budget of the project {project} is spent: {why}; an operator can raise it (UpdateQueue)"
        raise _spent(job, "project", problem)


def _spent(job: Job, whose: str, message: str) -> ServiceError:
    return ServiceError(Reason.BUDGET_SPENT, message, metadata={"name": str(job.name), "whose": whose})
