"""What happens to a job that gives way, or is late: the writes of these decisions."""

from __future__ import annotations

from services.scheduler.actions import Preempt, SayLate
from services.scheduler.jobs import JobState
from services.scheduler.store import jobs as job_store
from services.scheduler.store.transaction import Transaction


def begin(tx: Transaction, action: Preempt) -> bool:
    """Asks a running job to leave, unless it has moved on since it was looked at."""
    step = job_store.Step(
        to=JobState.PREEMPTING,
        reason="GIVES_WAY" if action.to_job is not None else "NODE_DRAINED",
        message=action.why,
        token=action.token,
        sources=frozenset({JobState.RUNNING}),
    )
    return job_store.advance(tx, action.job, step)


def say_late(tx: Transaction, action: SayLate) -> None:
    """Says once, in the job's log and as a condition, that it misses its deadline."""
    job_store.mark_late(tx, action.job, action.why)
