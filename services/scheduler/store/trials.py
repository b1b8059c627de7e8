"""Trials on disk. Each change is made where its sweep and its job still are as they were looked at, else not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import insert, select, update

from services.scheduler.jobs import WAITING, JobState, sources_of
from services.scheduler.records import NewJob
from services.scheduler.store import jobs as job_store
from services.scheduler.store import sweeps as sweep_store
from services.scheduler.store.sweep_tables import sweeps, trials
from services.scheduler.store.tables import jobs
from services.scheduler.store.transaction import Transaction
from services.scheduler.sweeps.space import Point
from services.scheduler.sweeps.trials import SweepState, Trial, TrialState


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTrial:
    """A trial that is to begin."""

    sweep: int
    number: int
    round: int
    point: Point
    digest: str
    message: str = ""
    """Why its parameters were refused; then it has no job. Or whose result its job has."""
    reports: Mapping[int, float] = field(default_factory=dict)
    """Values by step, where its job has the result of another one."""


class JobTaken(Exception):
    """There is a job of this name already; choose another id."""


def begin(tx: Transaction, new: NewTrial, job: NewJob | None) -> bool:
    """Stores a trial and its job together; False, and nothing is stored, when the sweep is not there to take it.

    Raises:
        JobTaken: the job's name is taken; nothing is stored.
    """
    state = tx.connection.execute(
        select(sweeps.c.state).where(sweeps.c.number == new.sweep).with_for_update()
    ).scalar_one_or_none()
    known = tx.connection.execute(select(trials.c.number, trials.c.digest).where(trials.c.sweep == new.sweep)).all()
    if state != SweepState.RUNNING or new.number != len(known) + 1 or new.digest in {row.digest for row in known}:
        return False
    added = None if job is None else job_store.add(tx, job, _number_of(tx, job))
    if job is not None and added is None:
        raise JobTaken(str(job.name))
    values = {
        "sweep": new.sweep,
        "number": new.number,
        "round": new.round,
        "point": json.dumps(dict(new.point), sort_keys=True),
        "digest": new.digest,
        "state": str(TrialState.FAILED if added is None else TrialState.RUNNING),
        "message": new.message,
        "reports": json.dumps(sorted(new.reports.items())),
        "job": None if added is None else added.number,
        "revision": sweep_store.next_revision(tx, new.sweep),
        "create_ms": tx.now_ms,
        "end_ms": tx.now_ms if added is None else None,
    }
    tx.connection.execute(insert(trials).values(**values))
    return True


def _number_of(tx: Transaction, job: NewJob) -> int | None:
    """Returns the number of the job that a job waits for."""
    if job.depends_on is None:
        return None
    name = job.depends_on
    query = select(jobs.c.number).where(jobs.c.project == name.project, jobs.c.job_id == name.job)
    return int(tx.connection.execute(query).scalar_one())


def keep_reports(tx: Transaction, sweep: int, trial: Trial, values: Mapping[int, float], read_seq: int) -> None:
    """Adds values by step to a trial's reports; a step that was done again has its newest value."""
    reports = sorted((dict(trial.reports) | dict(values)).items())
    _change(tx, sweep, trial, reports=json.dumps(reports), read_seq=read_seq)


def settle(tx: Transaction, sweep: int, trial: Trial, state: TrialState, value: float | None, message: str) -> None:
    """Ends a trial whose job has ended."""
    _change(tx, sweep, trial, state=str(state), value=value, message=message, end_ms=tx.now_ms)


def promote(tx: Transaction, sweep: int, trial: Trial, rungs: int) -> None:
    """Notes the rungs that a trial is past."""
    _change(tx, sweep, trial, rungs=rungs)


def stop(tx: Transaction, sweep: int, trial: Trial, reason: str, message: str, step: int) -> bool:
    """Cancels a trial's job; False, and nothing is done, when that has ended, is being cancelled or published."""
    state = _job_state(tx, trial)
    target = JobState.CANCELLED if state in WAITING else JobState.CANCELLING
    if state is None or not _move(tx, trial, state, target, reason, message):
        return False
    if step:
        _change(tx, sweep, trial, stop_step=step, message=message)
    return True


def pause(tx: Transaction, sweep: int, trial: Trial) -> bool:
    """Pauses a trial's job with its sweep; False when it cannot be paused now."""
    state = _job_state(tx, trial)
    target = JobState.PAUSED if state is JobState.QUEUED else JobState.PAUSING
    if state is None or not _move(tx, trial, state, target, "SWEEP_PAUSED", "Its sweep was paused."):
        return False
    _change(tx, sweep, trial, is_paused=True)
    return True


def resume(tx: Transaction, sweep: int, trial: Trial) -> None:
    """Lets a trial's job go on with its sweep."""
    _change(tx, sweep, trial, is_paused=False)
    _move(tx, trial, JobState.PAUSED, JobState.QUEUED, "SWEEP_RESUMED", "Its sweep was resumed.")


def _job_state(tx: Transaction, trial: Trial) -> JobState | None:
    state = tx.connection.execute(select(jobs.c.state).where(jobs.c.number == trial.job)).scalar_one_or_none()
    return None if state is None else JobState(state)


def _move(tx: Transaction, trial: Trial, source: JobState, target: JobState, reason: str, message: str) -> bool:
    if trial.job is None or source not in sources_of(target):
        return False
    step = job_store.Step(to=target, reason=reason, message=message, sources=frozenset({source}))
    return job_store.advance(tx, trial.job, step)


def _change(tx: Transaction, sweep: int, trial: Trial, **values: Any) -> None:
    """Changes a trial that has not ended."""
    guard = (trials.c.sweep == sweep, trials.c.number == trial.number, trials.c.state == str(TrialState.RUNNING))
    if tx.connection.execute(update(trials).where(*guard).values(**values)).rowcount:
        revision = sweep_store.next_revision(tx, sweep)
        tx.connection.execute(update(trials).where(*guard[:2]).values(revision=revision))
