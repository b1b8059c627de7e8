"""Pauses jobs whose budget is spent, once."""

from __future__ import annotations

from services.scheduler.jobs import JobState
from services.scheduler.queues.budgets import BUDGET_SPENT
from services.scheduler.store import jobs as job_store
from services.scheduler.store.transaction import Transaction


def pause(tx: Transaction, job: int, why: str) -> bool:
    """Pauses a job: at once while it is queued, else as soon as its attempt has saved its state.

    Args:
        tx: The transaction.
        job: Its number.
        why: Which budget is spent, as a sentence.

    Returns:
        Whether it was changed; a job that has moved on meanwhile is left alone.
    """
    state = job_store.load(tx.connection, job).state
    if state is JobState.QUEUED:
        step = job_store.Step(to=JobState.PAUSED, reason=BUDGET_SPENT, message=why, sources=frozenset({state}))
    elif state in {JobState.STARTING, JobState.RUNNING}:
        step = job_store.Step(to=JobState.PAUSING, reason=BUDGET_SPENT, message=why, sources=frozenset({state}))
    else:
        return False
    return job_store.advance(tx, job, step)
