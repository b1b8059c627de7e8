"""Which jobs a caller means, in SQL: the same as `lifecycle/filters.py` says of one job, over all of a project."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, tuple_

from services.scheduler.jobs import JobState
from services.scheduler.lifecycle.filters import JobFilter, JobOrder
from services.scheduler.records import Job, NewJob
from services.scheduler.store.jobs import job_of, whole_rows
from services.scheduler.store.tables import job_labels, jobs

_ESCAPE = "\\"
_RUNS = 20
"""Newest runs that are looked at for one on the same kind of device."""


def condition(project: str, wanted: JobFilter) -> ColumnElement[bool]:
    """Returns what is true of the rows that are meant; removed jobs never are."""
    parts: list[ColumnElement[bool]] = [jobs.c.project == project, jobs.c.removal.is_(None)]
    if wanted.states:
        parts.append(jobs.c.state.in_(sorted(map(str, wanted.states))))
    parts += [_labelled(project, key, value) for key, value in sorted(wanted.labels.items())]
    if (found := _found(project, wanted)) is not None:
        parts.append(jobs.c.number.in_(found))
    return and_(*parts, *_within(jobs.c.end_ms, wanted.ended_from_ms, wanted.ended_before_ms))


def list_page(
    connection: Connection, project: str, wanted: JobFilter, order: JobOrder, after: str | None, limit: int
) -> list[Job]:
    """Returns a page of the jobs that are meant.

    Args:
        connection: Where to read.
        project: Whose jobs.
        wanted: Which of them.
        order: Which comes first.
        after: `page_key` of the last job of the page before; None: the first page.
        limit: Most jobs.
    """
    query = whole_rows().where(condition(project, wanted)).limit(limit)
    number, end = jobs.c.number, jobs.c.end_ms
    match order:
        case JobOrder.NEWEST:
            query = query.order_by(number.desc())
            query = query if after is None else query.where(number < int(after))
        case JobOrder.OLDEST:
            query = query.order_by(number)
            query = query if after is None else query.where(number > int(after))
        case JobOrder.ENDED_LAST:
            query = query.where(end.is_not(None)).order_by(end.desc(), number.desc())
            if after is not None:
                query = query.where(tuple_(end, number) < tuple_(*map(int, after.split(","))))
    return [job_of(row) for row in connection.execute(query)]


def page_key(job: Job, order: JobOrder) -> str:
    """Returns where a page after this job begins."""
    return f"{job.end_ms or 0},{job.number}" if order is JobOrder.ENDED_LAST else str(job.number)


def numbers(connection: Connection, project: str, wanted: JobFilter, limit: int) -> list[tuple[int, str, JobState]]:
    """Returns number, id and state of the jobs that are meant, oldest first."""
    query = select(jobs.c.number, jobs.c.job_id, jobs.c.state).where(condition(project, wanted))
    rows = connection.execute(query.order_by(jobs.c.number).limit(limit))
    return [(row.number, row.job_id, JobState(row.state)) for row in rows]


def going_on(connection: Connection, project: str, wanted: JobFilter) -> list[tuple[int, str, JobState]]:
    """Returns the same of the paused ones among those that are meant that go on by themselves with a new period."""
    paused = frozenset({JobState.PAUSING, JobState.PAUSED})
    chosen = replace(wanted, states=paused & wanted.states if wanted.states else paused)
    if not chosen.states:
        return []
    query = select(jobs.c.number, jobs.c.job_id, jobs.c.state).where(condition(project, chosen))
    rows = connection.execute(query.where(jobs.c.goes_on_ms.is_not(None)))
    return [(row.number, row.job_id, JobState(row.state)) for row in rows]


def trained_alike(connection: Connection, new: NewJob, output_model: str | None) -> list[Job]:
    """Returns jobs of the project that train, or have trained, what a new one would, newest first.

    Args:
        connection: Where to read.
        new: The new job.
        output_model: Only those that publish into this model; None: into any.
    """
    if new.training_digest is None:
        return []
    query = whole_rows().where(
        jobs.c.project == new.name.project,
        jobs.c.training_digest == new.training_digest,
        jobs.c.removal.is_(None),
        jobs.c.reused_from.is_(None),
        jobs.c.verifies.is_(None),
        jobs.c.state.not_in(["FAILED", "CANCELLED"]),
    )
    if output_model is not None:
        query = query.where(jobs.c.output_model == output_model)
    return [job_of(row) for row in connection.execute(query.order_by(jobs.c.number.desc()).limit(20))]


def newest_runs(connection: Connection, project: str) -> list[bytes]:
    """Returns the serialised `Resolved` of the newest jobs of a project that have got so far, newest first."""
    query = select(jobs.c.resolved).where(jobs.c.project == project, jobs.c.resolved.is_not(None))
    return list(connection.execute(query.order_by(jobs.c.number.desc()).limit(_RUNS)).scalars())


def _labelled(project: str, key: str, value: str) -> ColumnElement[bool]:
    labels = job_labels.c
    found = select(labels.job).where(labels.project == project, labels.key == key)
    return jobs.c.number.in_(found if value == "" else found.where(labels.value == value))


def _found(project: str, wanted: JobFilter) -> Any:
    """Returns a query that one index answers alone, for what stands in wide rows else; None: nothing is asked."""
    inner = jobs.alias()
    parts = list(_within(inner.c.create_ms, wanted.created_from_ms, wanted.created_before_ms))
    if wanted.search:
        pattern = func.lower(f"%{_escaped(wanted.search)}%")
        names = (func.lower(column).like(pattern, escape=_ESCAPE) for column in (inner.c.job_id, inner.c.creator))
        parts.append(or_(*names))
    if wanted.output_model:
        parts.append(inner.c.output_model == wanted.output_model)
    if wanted.base:
        parts.append(_is_of(inner.c.base_version, wanted.base))
    if wanted.dataset:
        parts.append(_is_of(inner.c.train_version, wanted.dataset))
    if wanted.priorities:
        parts.append(inner.c.priority.in_(sorted(wanted.priorities)))
    if wanted.sweep:
        parts.append(inner.c.trial.like(f"{_escaped(wanted.sweep)}/trials/%", escape=_ESCAPE))
    return select(inner.c.number).where(inner.c.project == project, *parts) if parts else None


def _within(column: Any, first_ms: int | None, before_ms: int | None) -> Iterator[ColumnElement[bool]]:
    if first_ms is not None:
        yield column >= first_ms
    if before_ms is not None:
        yield column < before_ms


def _is_of(column: Any, wanted: str) -> ColumnElement[bool]:
    return or_(column == wanted, column.like(f"{_escaped(wanted)}/versions/%", escape=_ESCAPE))


def _escaped(text: str) -> str:
    for special in (_ESCAPE, "%", "_"):
        text = text.replace(special, _ESCAPE + special)
    return text
