"""Jobs that are put aside because taking them up ends badly each time."""

from __future__ import annotations

from sqlalchemy import delete, select, update

from services.scheduler import wire
from services.scheduler.jobs import LIVE_ATTEMPT, AttemptEnd, AttemptState, Failure, JobState
from services.scheduler.store import attempts as attempt_store
from services.scheduler.store import jobs as job_store
from services.scheduler.store.tables import jobs, outbox
from services.scheduler.store.transaction import Transaction

_TO_FAILED = frozenset({
    JobState.BLOCKED, JobState.QUEUED, JobState.STARTING, JobState.RUNNING, JobState.PAUSING, JobState.PREEMPTING,
    JobState.PUBLISHING,
})  # fmt: skip


def put_aside(tx: Transaction, job: int, failure: Failure, *, mends_row: bool = False) -> bool:
    """Fails a job whatever can still be read of it; its attempt is given up, and stopped by its node when it is heard.

    Args:
        tx: The transaction.
        job: Number of the job.
        failure: Why.
        mends_row: Whether what cannot be read of its row is emptied, so that lists can show it.

    Returns:
        Whether it had not ended, and was not being cancelled or paused.
    """
    row = tx.connection.execute(select(jobs.c.state, jobs.c.attempt).where(jobs.c.number == job)).one_or_none()
    if row is None or row.state not in _TO_FAILED:
        return False
    end = AttemptEnd(state=AttemptState.LOST, failure=failure)
    for part in attempt_store.parts_of(tx.connection, job, row.attempt):
        if part.state in LIVE_ATTEMPT:
            attempt_store.end_part(tx, part, end)
    tx.connection.execute(delete(outbox).where(outbox.c.job == job))
    if mends_row:
        empty = {"node_labels": "{}", "exclusions": "", "budget": None, "labels": "{}", "retry": None}
        tx.connection.execute(update(jobs).where(jobs.c.number == job).values(**empty))
    step = job_store.Step(to=JobState.FAILED, reason=failure.reason, message=failure.message)
    return job_store.fail(tx, job, wire.failure_bytes(failure), step)
