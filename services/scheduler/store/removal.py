"""Removing jobs that have ended: at once for everybody who reads, then piece by piece from the disk.

A row stays for ever: results are registered under a job's name, so that no other job may ever have it. What is left of
it is the name and how it ended.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, or_, select, update

from services.scheduler.jobs import TERMINAL
from services.scheduler.records import Job
from services.scheduler.store import changes
from services.scheduler.store import checkpoints as checkpoint_store
from services.scheduler.store.sweep_tables import sweeps, trials
from services.scheduler.store.tables import attempts, checkpoints, chunks, job_dependencies, job_labels, jobs
from services.scheduler.store.transaction import Transaction
from tuneforge.names import CheckpointName, JobName, SweepName

CHUNKS_AT_ONCE = 200
"""Chunks of events taken out in one transaction: some ten milliseconds."""
CHECKPOINTS_AT_ONCE = 100
_ENDED = [str(state) for state in TERMINAL]
PENDING, DONE = "PENDING", "DONE"


def holder_of(connection: Connection, job: Job) -> tuple[str, str] | None:
    """Returns who needs a job that has ended, and why; None: nobody."""
    pinned = select(checkpoints.c.step).where(checkpoints.c.job == job.number, checkpoints.c.is_pinned.is_(True))
    if (step := connection.execute(pinned.limit(1)).scalar_one_or_none()) is not None:
        name = str(job.name.checkpoint(step))
        return name, f"its checkpoint {name} is pinned; unpin it first"
    running = sweeps.c.end_ms.is_(None)
    trial = select(sweeps.c.project, sweeps.c.sweep_id).join(trials, trials.c.sweep == sweeps.c.number)
    if (sweep := connection.execute(trial.where(trials.c.job == job.number, running)).first()) is not None:
        name = str(SweepName(sweep.project, sweep.sweep_id))
        return name, f"it is a trial of {name}, which has not ended"
    begins = jobs.c.origin_name.like(f"{job.name}/checkpoints/%")
    later = select(job_dependencies.c.job).where(job_dependencies.c.depends_on == job.number)
    waits = or_(jobs.c.depends_on == job.number, jobs.c.number.in_(later))
    live = jobs.c.state.not_in(_ENDED)
    found = connection.execute(
        select(jobs.c.project, jobs.c.job_id, waits.label("waits")).where(live, or_(begins, waits)).limit(1)
    ).one_or_none()
    if found is None:
        return _needs_weights(connection, job)
    other = str(JobName(found.project, found.job_id))
    how = "waits for it" if found.waits else "begins from a checkpoint of it"
    return other, f"{other} {how} and has not ended"


def _needs_weights(connection: Connection, job: Job) -> tuple[str, str] | None:
    """Returns who began from a branch of a job and may end with the weights of one of its checkpoints, and why."""
    for name, others in checkpoint_store.needed_by_jobs(connection).items():
        if CheckpointName.parse(name).parent == job.name:
            return others[0], f"{others[0]} may end with the weights of its checkpoint {name} and has not ended"
    return None


def begin(tx: Transaction, job: int) -> None:
    """Removes a job that has ended for everybody who reads; the rest of it goes with `purge`."""
    tx.connection.execute(update(jobs).where(jobs.c.number == job).values(removal=PENDING, expire_ms=None))
    tx.connection.execute(delete(job_labels).where(job_labels.c.job == job))
    changes.touch(tx, [job])  # who watches all jobs is told


def purge(tx: Transaction, job: int) -> bool:
    """Takes a piece of a removed job from the disk; returns whether nothing more is to be done now."""
    oldest = select(chunks.c.first_seq).where(chunks.c.job == job).order_by(chunks.c.first_seq).limit(CHUNKS_AT_ONCE)
    if taken := list(tx.connection.execute(oldest).scalars()):
        tx.connection.execute(delete(chunks).where(chunks.c.job == job, chunks.c.first_seq <= taken[-1]))
        return False
    row = tx.connection.execute(select(jobs.c.project, jobs.c.job_id).where(jobs.c.number == job)).one()
    name = JobName(row.project, row.job_id)
    saved = checkpoint_store.list_newest(tx.connection, job, None, CHECKPOINTS_AT_ONCE)
    for checkpoint in saved:
        checkpoint_store.forget(tx, job, str(name.checkpoint(checkpoint.step)), checkpoint.step)
    if len(saved) == CHECKPOINTS_AT_ONCE:
        return False
    tx.connection.execute(delete(attempts).where(attempts.c.job == job, attempts.c.is_closed.is_(True)))
    open_ones = select(attempts.c.attempt).where(attempts.c.job == job).limit(1)
    if tx.connection.execute(open_ones).one_or_none() is not None:
        return True  # its node does not know the end yet; the next round looks again
    blank = {"spec": b"", "inputs": None, "estimate": None, "resource_estimate": None, "resolved": None}
    rest = {"failure": None, "labels": "{}", "origin_manifest": None, "verifies": None, "message": "", "removal": DONE}
    tx.connection.execute(update(jobs).where(jobs.c.number == job).values(**blank, **rest))
    return True


def pending(connection: Connection, limit: int) -> list[int]:
    """Returns removed jobs that are not yet gone from the disk."""
    return list(connection.execute(_numbers(jobs.c.removal == PENDING, limit)).scalars())


def due(connection: Connection, now_ms: int, limit: int) -> list[int]:
    """Returns jobs whose time after their end is over."""
    return list(connection.execute(_numbers(jobs.c.expire_ms <= now_ms, limit)).scalars())


def postpone(tx: Transaction, job: int, moment_ms: int) -> None:
    """Puts the removal of a job off, because something needs it."""
    tx.connection.execute(update(jobs).where(jobs.c.number == job).values(expire_ms=moment_ms))


def _numbers(condition: Any, limit: int) -> Any:
    return select(jobs.c.number).where(condition).order_by(jobs.c.number).limit(limit)
