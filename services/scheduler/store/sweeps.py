"""Sweeps on disk: storing them, moving their state, and reading them with all of their trials."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from services.scheduler import wire
from services.scheduler.jobs import LIVE_ATTEMPT, Failure, JobState
from services.scheduler.records import Ref
from services.scheduler.store.sweep_tables import sweeps, trials
from services.scheduler.store.tables import attempts, jobs
from services.scheduler.store.transaction import Transaction
from services.scheduler.sweeps.trials import (
    ENDED_SWEEP,
    NewSweep,
    Standings,
    Sweep,
    SweepState,
    Trial,
    TrialState,
)
from services.scheduler.wire.sweeps import stored_plan
from tuneforge.names import JobName, SweepName

_GOING_ON = [str(state) for state in SweepState if state not in ENDED_SWEEP]
_LIVE = [str(state) for state in LIVE_ATTEMPT]


def add(tx: Transaction, new: NewSweep) -> int | None:
    """Stores a sweep that runs; None when its name is taken."""
    if find(tx.connection, new.name) is not None:
        return None
    values = {
        "project": new.name.project,
        "sweep_id": new.name.sweep,
        "state": str(SweepState.RUNNING),
        "reason": "CREATED",
        "message": "It begins its trials.",
        "creator": new.creator,
        "labels": json.dumps(dict(new.labels)),
        "spec": new.spec,
        "plan": new.plan,
        "combinations": new.combinations,
        "cost": new.cost,
        "versions": json.dumps(new.versions),
        "create_ms": tx.now_ms,
    }
    return int(tx.connection.execute(insert(sweeps).values(**values).returning(sweeps.c.number)).scalar_one())


def advance(
    tx: Transaction,
    sweep: int,
    to: SweepState,
    sources: Collection[SweepState],
    *,
    reason: str,
    message: str,
    failure: Failure | None = None,
) -> bool:
    """Moves a sweep; False when it is in none of the states that it may come from."""
    values: dict[str, Any] = {
        "state": str(to),
        "reason": reason,
        "message": message,
        "revision": sweeps.c.revision + 1,
    }
    if failure is not None:
        values["failure"] = wire.failure_bytes(failure)
    if to in ENDED_SWEEP:
        values["end_ms"] = tx.now_ms
    guard = (sweeps.c.number == sweep, sweeps.c.state.in_([str(state) for state in sources]))
    return tx.connection.execute(update(sweeps).where(*guard).values(**values)).rowcount == 1


def close_rounds(tx: Transaction, sweep: int, rounds_done: int, message: str) -> None:
    """Notes that rounds up to a number take no more trials."""
    guard = (sweeps.c.number == sweep, sweeps.c.rounds_done < rounds_done, sweeps.c.state == str(SweepState.RUNNING))
    values = {
        "rounds_done": rounds_done,
        "reason": "ROUND_DONE",
        "message": message,
        "revision": sweeps.c.revision + 1,
    }
    tx.connection.execute(update(sweeps).where(*guard).values(**values))


def next_revision(tx: Transaction, sweep: int) -> int:
    """Raises a sweep's revision and returns it."""
    grown = update(sweeps).where(sweeps.c.number == sweep).values(revision=sweeps.c.revision + 1)
    return int(tx.connection.execute(grown.returning(sweeps.c.revision)).scalar_one())


def remove(tx: Transaction, sweep: int) -> None:
    """Takes an ended sweep and its trials out; its jobs stay."""
    tx.connection.execute(delete(trials).where(trials.c.sweep == sweep))
    tx.connection.execute(delete(sweeps).where(sweeps.c.number == sweep))


def find(connection: Connection, name: SweepName) -> int | None:
    """Returns the number of a sweep by name, or None."""
    query = select(sweeps.c.number).where(sweeps.c.project == name.project, sweeps.c.sweep_id == name.sweep)
    return connection.execute(query).scalar_one_or_none()


def going_on(connection: Connection) -> list[int]:
    """Returns the numbers of the sweeps that have not ended, oldest first."""
    return [int(number) for number in connection.execute(_NUMBERS_GOING_ON).scalars()]


# Made once: it is asked for again and again while jobs change.
_NUMBERS_GOING_ON = select(sweeps.c.number).where(sweeps.c.state.in_(_GOING_ON)).order_by(sweeps.c.number)


def list_newest(connection: Connection, project: str, before: int | None, limit: int) -> list[int]:
    """Returns numbers of a project's sweeps, newest first, those below `before` when it is given."""
    query = select(sweeps.c.number).where(sweeps.c.project == project).order_by(sweeps.c.number.desc()).limit(limit)
    if before is not None:
        query = query.where(sweeps.c.number < before)
    return [int(number) for number in connection.execute(query).scalars()]


def held_versions(connection: Connection) -> frozenset[tuple[str, str]]:
    """Returns pairs of a sweep that has not ended and a version that its trials read, by name."""
    columns = (sweeps.c.project, sweeps.c.sweep_id, sweeps.c.versions)
    rows = connection.execute(select(*columns).where(sweeps.c.state.in_(_GOING_ON)))
    return frozenset(
        (str(SweepName(project, sweep_id)), version)
        for project, sweep_id, versions in rows
        for version in json.loads(versions)
    )


def load(connection: Connection, number: int, now_ms: int) -> Standings | None:
    """Returns a sweep with all of its trials and what their jobs say; None: there is none."""
    row = connection.execute(select(sweeps).where(sweeps.c.number == number)).one_or_none()
    if row is None:
        return None
    sweep = _sweep(row)
    running = _running_ms(connection, number, now_ms)
    query = (
        select(
            trials,
            jobs.c.project,
            jobs.c.job_id,
            jobs.c.state.label("job_state"),
            jobs.c.message.label("job_message"),
            jobs.c.version,
            jobs.c.digest.label("version_digest"),
            jobs.c.latest_seq,
            jobs.c.step,
            jobs.c.total_steps,
            jobs.c.attained_ms,
        )
        .outerjoin(jobs, jobs.c.number == trials.c.job)
        .where(trials.c.sweep == number)
        .order_by(trials.c.number)
    )
    found = tuple(_trial(each, sweep.name, running) for each in connection.execute(query))
    return Standings(sweep=sweep, trials=found)


def _running_ms(connection: Connection, sweep: int, now_ms: int) -> dict[int, int]:
    """Returns the device-milliseconds of live attempts of a sweep's trials, by job."""
    query = (
        select(attempts.c.job, func.sum((now_ms - attempts.c.create_ms) * attempts.c.slots))
        .join(trials, trials.c.job == attempts.c.job)
        .where(trials.c.sweep == sweep, attempts.c.state.in_(_LIVE))
        .group_by(attempts.c.job)
    )
    return {int(job): int(used) for job, used in connection.execute(query)}


def _sweep(row: Row[Any]) -> Sweep:
    return Sweep(
        number=row.number,
        name=SweepName(row.project, row.sweep_id),
        state=SweepState(row.state),
        reason=row.reason,
        message=row.message,
        creator=row.creator,
        labels=json.loads(row.labels),
        spec=row.spec,
        plan_message=row.plan,
        plan=stored_plan(row.plan),
        combinations=row.combinations,
        cost=row.cost,
        rounds_done=row.rounds_done,
        failure=row.failure,
        revision=row.revision,
        create_ms=row.create_ms,
        end_ms=row.end_ms,
    )


def _trial(row: Row[Any], sweep: SweepName, running: dict[int, int]) -> Trial:
    has_job = row.job_id is not None
    used_ms = (row.attained_ms or 0) + running.get(row.job, 0)
    published = Ref(version=row.version, digest=row.version_digest) if row.version and row.version_digest else None
    return Trial(
        number=row.number,
        name=sweep.trial(row.number),
        round=row.round,
        point={name: tuple(each) if isinstance(each, list) else each for name, each in json.loads(row.point).items()},
        digest=row.digest,
        state=TrialState(row.state),
        message=row.message,
        job=row.job,
        job_name=JobName(row.project, row.job_id) if has_job else None,
        job_state=JobState(row.job_state) if has_job else None,
        job_message=row.job_message or "",
        published=published,
        value=row.value,
        reports=tuple((int(step), float(value)) for step, value in json.loads(row.reports)),
        rungs=row.rungs,
        stop_step=row.stop_step,
        is_paused=row.is_paused,
        read_seq=row.read_seq,
        latest_seq=row.latest_seq or 0,
        total_steps=row.total_steps or 0,
        step=row.step or 0,
        device_seconds=used_ms / 1000,
        revision=row.revision,
        create_ms=row.create_ms,
        end_ms=row.end_ms,
    )
