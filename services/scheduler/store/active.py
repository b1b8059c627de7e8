"""Jobs that have not ended, as decisions see them: all of them, or what has changed of them.

A column that decisions need is named in `_COLUMNS` and put into an `ActiveJob` in `_active_jobs`. Whatever writes such
a column stamps the job with the change (`changes.py`), or the loop goes on with what it knew before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, bindparam, case, select

from services.scheduler.jobs import TERMINAL, JobState
from services.scheduler.records import ActiveJob
from services.scheduler.store import checkpoints
from services.scheduler.store.jobs import NOT_ENDED, budget_of, spent_of
from services.scheduler.store.needs import needs_of
from services.scheduler.store.tables import job_dependencies, jobs
from tuneforge.names import CheckpointName, JobName

_COLUMNS = (
    "number", "project", "job_id", "state", "attempt", "token", "depends_on", "not_before_ms", "lost_after_ms",
    "attained_ms", "joules", "budget",
    "nodes", "devices", "peak_bytes", "device_peak_bytes", "beside_bytes", "host_bytes", "cpu_millis", "node_labels",
    "exclusions", "create_ms", "priority",
    "is_preemptible", "start_after_ms", "deadline_ms", "is_late", "queued_ms", "predicted_ms", "step", "total_steps",
    "goes_on_ms",
)  # fmt: skip
Broken = dict[int, Exception]
"""Jobs whose row cannot be read, by number, with what was raised."""
_VERIFIED = case((jobs.c.verifies.is_not(None), jobs.c.origin_name)).label("verified")
_ACTIVE = select(*[*(jobs.c[name] for name in _COLUMNS), _VERIFIED])
_TRIED = select(jobs.c.number).where(jobs.c.attempt > 0)


def all_jobs(connection: Connection, broken: Broken | None = None) -> list[ActiveJob]:
    """Returns what decisions need of all jobs that have not ended, oldest first.

    Args:
        connection: Where to read.
        broken: Takes the jobs whose row cannot be read, with what was raised; they are left out. None: it is raised.
    """
    rows, saved = _ALL.read(connection)
    return _active_jobs(sorted(rows, key=lambda row: row.number), saved, broken)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """Jobs that were changed since a moment."""

    active: list[ActiveJob]
    """Those that have not ended."""
    ended: list[int]
    """Numbers of those that have."""


def changed(connection: Connection, after: int, broken: Broken | None = None) -> Changed:
    """Returns the jobs that were changed after a number in the order of changes (`changes.py`); `broken` as above."""
    rows, saved = _CHANGED.read(connection, after=after)
    return Changed(
        active=_active_jobs([row for row in rows if row.state not in TERMINAL], saved, broken),
        ended=[row.number for row in rows if row.state in TERMINAL],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Saved:
    """What is saved of jobs' runs, by number."""

    nodes: Mapping[int, str]
    durable: Mapping[int, tuple[int, str | None]]
    """Step of the newest checkpoint in the blob store, and the node that made it; of a verification 0, and the node
    that made what it verifies."""
    waits_for: Mapping[int, tuple[int, ...]]


class _Reading:
    """The queries for the jobs that a condition is true of; made once, for they are asked at each look."""

    def __init__(self, condition: ColumnElement[bool]) -> None:
        blocked = select(jobs.c.number).where(jobs.c.state == str(JobState.BLOCKED), condition)
        self._nodes = checkpoints.newest_nodes_query(_TRIED.where(condition))
        self._durable = checkpoints.durable_query(_TRIED.where(condition))
        self._waits = select(job_dependencies).where(job_dependencies.c.job.in_(blocked))
        self._jobs = _ACTIVE.where(condition)

    def read(self, connection: Connection, **values: int) -> tuple[Sequence[Row[Any]], _Saved]:
        """Returns the rows, and what is saved of their runs."""
        # The jobs that BLOCKED ones wait for, beside the one whose output they start from.
        waits_for: dict[int, tuple[int, ...]] = {}
        for row in connection.execute(self._waits, values):
            waits_for[row.job] = (*waits_for.get(row.job, ()), row.depends_on)
        rows = connection.execute(self._jobs, values).all()
        durable: dict[int, tuple[int, str | None]] = {
            row.job: (row.step, row.node) for row in connection.execute(self._durable, values)
        }
        for row in rows:
            if row.verified:
                durable[row.number] = 0, checkpoints.made_by(connection, CheckpointName.parse(row.verified))
        nodes = {row.job: row.node for row in connection.execute(self._nodes, values)}
        return rows, _Saved(nodes=nodes, durable=durable, waits_for=waits_for)


_ALL = _Reading(jobs.c.state.in_(NOT_ENDED))
_CHANGED = _Reading(jobs.c.change_seq > bindparam("after"))


def _active_jobs(rows: Iterable[Row[Any]], saved: _Saved, broken: Broken | None) -> list[ActiveJob]:
    found = []
    for row in rows:
        try:
            found.append(_active_job(row, saved))
        except Exception as error:
            if broken is None:
                raise
            broken[row.number] = error
    return found


def _active_job(row: Row[Any], saved: _Saved) -> ActiveJob:
    durable_step, durable_node = saved.durable.get(row.number, (0, None))
    return ActiveJob(
        number=row.number,
        name=JobName(row.project, row.job_id),
        state=JobState(row.state),
        token=row.token,
        depends_on=row.depends_on,
        not_before_ms=row.not_before_ms,
        lost_after_ms=row.lost_after_ms,
        needs=needs_of(row),
        checkpoint_node=saved.nodes.get(row.number),
        create_ms=row.create_ms,
        spent=spent_of(row),
        budget=budget_of(row),
        priority=row.priority,
        is_preemptible=row.is_preemptible,
        start_after_ms=row.start_after_ms or 0,
        waits_for=saved.waits_for.get(row.number, ()),
        deadline_ms=row.deadline_ms,
        is_late=row.is_late,
        queued_ms=row.queued_ms,
        goes_on_ms=row.goes_on_ms,
        predicted_ms=row.predicted_ms,
        step=row.step,
        total_steps=row.total_steps,
        durable_step=durable_step,
        durable_node=durable_node,
    )
