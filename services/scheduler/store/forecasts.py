"""Promises of when jobs start and end, and what came: on disk, bounded in number."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    Row,
    String,
    Table,
    and_,
    delete,
    func,
    insert,
    select,
    update,
)

from services.scheduler import wire
from services.scheduler.foresight.promises import NEWEST, Event, Outcome, Promise, Source, Span
from services.scheduler.jobs import JobState
from services.scheduler.store.tables import attempts, jobs, metadata
from services.scheduler.store.transaction import Transaction
from tuneforge.names import JobName

KEPT = 20_000
"""Promises that are kept; older ones go."""
OPEN_AT_ONCE = 5_000
"""Open promises that are looked at in one go."""
CREATED_AT_ONCE = 200
"""Jobs that are looked at in one go for being the one that was simulated."""

_Number = BigInteger().with_variant(Integer, "sqlite")

forecasts = Table(
    "forecasts",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    Column("job", BigInteger, comment="number of the job; NULL: simulated, and not created so far"),
    Column("project", String(63), nullable=False),
    Column("digest", String(64), nullable=False, default="", comment="of a simulated job's spec"),
    Column("event", String(8), nullable=False),
    Column("source", String(16), nullable=False),
    Column("make_ms", BigInteger, nullable=False),
    Column("expected_ms", BigInteger, nullable=False, comment="before any correction, as the two below"),
    Column("earliest_ms", BigInteger, nullable=False),
    Column("latest_ms", BigInteger, nullable=False),
    Column("told_expected_ms", BigInteger, nullable=False),
    Column("told_earliest_ms", BigInteger, nullable=False),
    Column("told_latest_ms", BigInteger, nullable=False),
    Column("real_ms", BigInteger),
    Column("outcome", String(8), nullable=False),
    Index("forecasts_by_job", "job"),
    Index("forecasts_by_outcome", "outcome", "event"),
    sqlite_autoincrement=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reality:
    """How far a job that was promised something is."""

    state: JobState
    end_ms: int | None
    placed_ms: tuple[int, ...]
    """When it was given nodes, each time."""


def add(tx: Transaction, promises: Sequence[Promise]) -> None:
    """Keeps promises; the oldest ones go when there are more than `KEPT`."""
    if not promises:
        return
    tx.connection.execute(insert(forecasts), [_values(each) for each in promises])
    newest = tx.connection.execute(select(func.max(forecasts.c.id))).scalar_one()
    tx.connection.execute(delete(forecasts).where(forecasts.c.id <= newest - KEPT))


def settle(tx: Transaction, settled: Mapping[int, tuple[int | None, Outcome]]) -> None:
    """Writes what became of promises, by id: when it happened, and the outcome."""
    for number, (real_ms, outcome) in settled.items():
        tx.connection.execute(
            update(forecasts).where(forecasts.c.id == number).values(real_ms=real_ms, outcome=str(outcome))
        )


def attach(tx: Transaction, found: Mapping[int, int]) -> None:
    """Writes which jobs simulated ones have become: number of the job by id of the promise."""
    for number, job in found.items():
        tx.connection.execute(update(forecasts).where(forecasts.c.id == number).values(job=job))


def unsettled(connection: Connection) -> list[Promise]:
    """Returns promises whose moment has not come, the oldest first."""
    has_come = forecasts.c.real_ms.is_not(None)
    query = (
        select(forecasts)
        .where(forecasts.c.outcome.in_([str(Outcome.OPEN), str(Outcome.LATE)]), ~has_come)
        .order_by(forecasts.c.id)
        .limit(OPEN_AT_ONCE)
    )
    return [_promise(row) for row in connection.execute(query)]


def realities(connection: Connection, numbers: Collection[int]) -> dict[int, Reality]:
    """Returns how far jobs are, by number; one that was removed is missing."""
    found: dict[int, Reality] = {}
    ordered = sorted(numbers)
    for begin in range(0, len(ordered), 500):
        some = ordered[begin : begin + 500]
        placed: dict[int, list[int]] = {}
        firsts = and_(attempts.c.job.in_(some), attempts.c.node_rank == 0)
        for job, create_ms in connection.execute(select(attempts.c.job, attempts.c.create_ms).where(firsts)):
            placed.setdefault(job, []).append(create_ms)
        for row in connection.execute(
            select(jobs.c.number, jobs.c.state, jobs.c.end_ms).where(jobs.c.number.in_(some))
        ):
            found[row.number] = Reality(
                state=JobState(row.state), end_ms=row.end_ms, placed_ms=tuple(sorted(placed.get(row.number, ())))
            )
    return found


def with_first(connection: Connection, numbers: Collection[int]) -> set[int]:
    """Returns which of some jobs were promised something when they were new."""
    query = select(forecasts.c.job).where(
        forecasts.c.job.in_(sorted(numbers)), forecasts.c.source == str(Source.CREATION)
    )
    return set(connection.execute(query).scalars())


def created_since(connection: Connection, promises: Sequence[Promise]) -> dict[int, tuple[str, str, int]]:
    """Returns the jobs that open promises of simulations may have become: project, digest of spec, time, by number."""
    simulated = [each for each in promises if each.job is None]
    if not simulated:
        return {}
    query = (
        select(jobs.c.number, jobs.c.project, jobs.c.spec, jobs.c.create_ms)
        .where(
            jobs.c.create_ms >= min(each.make_ms for each in simulated),
            jobs.c.project.in_(sorted({each.project for each in simulated})),
        )
        .order_by(jobs.c.number)
        .limit(CREATED_AT_ONCE)
    )
    rows = connection.execute(query)
    return {row.number: (row.project, wire.spec_digest(row.spec), row.create_ms) for row in rows}


def decided(connection: Connection, event: Event) -> list[Promise]:
    """Returns the newest promises of an event whose outcome is known and counts."""
    outcomes = [str(each) for each in (Outcome.KEPT, Outcome.EARLY, Outcome.LATE)]
    query = (
        select(forecasts)
        .where(forecasts.c.event == str(event), forecasts.c.outcome.in_(outcomes))
        .order_by(forecasts.c.id.desc())
        .limit(NEWEST)
    )
    return [_promise(row) for row in connection.execute(query)]


def counts(connection: Connection) -> dict[tuple[Event, Outcome], int]:
    """Returns how many promises are kept, by event and outcome."""
    query = select(forecasts.c.event, forecasts.c.outcome, func.count()).group_by(
        forecasts.c.event, forecasts.c.outcome
    )
    return {(Event(event), Outcome(outcome)): count for event, outcome, count in connection.execute(query)}


def list_newest(
    connection: Connection, project: str, job: int | None, before: int | None, limit: int
) -> list[tuple[Promise, JobName | None]]:
    """Returns promises of a project with the names of their jobs, newest first.

    Args:
        connection: To the database.
        project: Whose.
        job: Only those to this job; None: all.
        before: Only those with a smaller id; None: all.
        limit: Most that are returned.
    """
    query = (
        select(forecasts, jobs.c.job_id)
        .join(jobs, jobs.c.number == forecasts.c.job, isouter=True)
        .where(forecasts.c.project == project)
        .order_by(forecasts.c.id.desc())
        .limit(limit)
    )
    if job is not None:
        query = query.where(forecasts.c.job == job)
    if before is not None:
        query = query.where(forecasts.c.id < before)
    return [
        (_promise(row), JobName(row.project, row.job_id) if row.job_id else None) for row in connection.execute(query)
    ]


def _values(promise: Promise) -> dict[str, Any]:
    return {
        "job": promise.job,
        "project": promise.project,
        "digest": promise.digest,
        "event": str(promise.event),
        "source": str(promise.source),
        "make_ms": promise.make_ms,
        "expected_ms": promise.raw.expected_ms,
        "earliest_ms": promise.raw.earliest_ms,
        "latest_ms": promise.raw.latest_ms,
        "told_expected_ms": promise.told.expected_ms,
        "told_earliest_ms": promise.told.earliest_ms,
        "told_latest_ms": promise.told.latest_ms,
        "real_ms": promise.real_ms,
        "outcome": str(promise.outcome),
    }


def _promise(row: Row[Any]) -> Promise:
    return Promise(
        id=row.id,
        job=row.job,
        project=row.project,
        digest=row.digest,
        event=Event(row.event),
        source=Source(row.source),
        make_ms=row.make_ms,
        raw=Span(expected_ms=row.expected_ms, earliest_ms=row.earliest_ms, latest_ms=row.latest_ms),
        told=Span(expected_ms=row.told_expected_ms, earliest_ms=row.told_earliest_ms, latest_ms=row.told_latest_ms),
        real_ms=row.real_ms,
        outcome=Outcome(row.outcome),
    )
