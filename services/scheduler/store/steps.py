"""Changes of jobs' states on disk, guarded in SQL by the table of legal changes and by the fencing token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, bindparam, select, update

from services.scheduler import wire
from services.scheduler.jobs import TERMINAL, JobState, sources_of
from services.scheduler.store import checkpoints, events
from services.scheduler.store.setting import set_values
from services.scheduler.store.tables import jobs
from services.scheduler.store.transaction import Transaction
from services.scheduler.watching.records import Chunk
from tuneforge.names import JobName


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A change of a job's state that is to be made if the job still is where it is believed to be."""

    to: JobState
    reason: str
    """Stable word."""
    message: str
    """Sentence for a person."""
    token: int | None = None
    """The job's fencing token must be this one; None: whatever it is."""
    sources: frozenset[JobState] | None = None
    """The job must be in one of these; None: in any from which `to` is legal."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Further columns to set."""


_COLUMNS = (
    "number", "state", "token", "project", "job_id", "start_ms", "origin_name", "latest_seq", "record_head",
)  # fmt: skip
_BEFORE = (
    select(*(jobs.c[name] for name in _COLUMNS))
    .where(jobs.c.number.in_(bindparam("of_jobs", expanding=True)))
    .with_for_update()
)


def advance(tx: Transaction, job: int, step: Step) -> bool:
    """Makes a change of state and writes its event; False when the job is not where it was believed to be."""
    return bool(advance_all(tx, {job: step}))


def advance_all(tx: Transaction, steps: Mapping[int, Step]) -> list[int]:
    """Makes changes of state and writes their events; returns the jobs that were where they were believed to be.

    Steps of several jobs share their statements: they must lead to one state and set the same columns, and where to
    an expression, to the same one.
    """
    found = tx.connection.execute(_BEFORE, {"of_jobs": list(steps)}).all()
    rows = [row for row in found if _is_there(row, steps[row.number])]
    if not rows:
        return []
    made = [_made(tx, row, steps[row.number]) for row in rows]
    is_end = steps[rows[0].number].to in TERMINAL
    # The rows are locked since they were read; the guards stand in the statement all the same, for whoever reads it.
    if set_values(tx.connection, _END if is_end else _ADVANCE, *(values for values, _ in made)) != len(made):
        raise AssertionError("a row that was locked has changed")
    events.write(tx, *(chunk for _, chunk in made))
    advanced = [row.number for row in rows]
    tx.turned.update(advanced)
    if is_end:
        tx.ended.update((row.number, str(JobName(row.project, row.job_id))) for row in rows)
        for origin in (row.origin_name for row in rows if row.origin_name):
            checkpoints.release_origin(tx, origin)
    return advanced


def _is_there(before: Row[Any], step: Step) -> bool:
    legal = sources_of(step.to)
    allowed = legal if step.sources is None else legal & step.sources
    return before.state in allowed and step.token in {None, before.token}


def _made(tx: Transaction, before: Row[Any], step: Step) -> tuple[dict[str, Any], Chunk]:
    """Returns what is set in a job's row, with what the statement is guarded by, and its event."""
    name = str(JobName(before.project, before.job_id))
    change = wire.Change(job=name, source=before.state, target=str(step.to), reason=step.reason, message=step.message)
    end = events.log_end(name, before.latest_seq, before.record_head)
    chunk, logged = events.extend(tx, before.number, end, lambda seq: wire.state_event(change, seq, tx.now_ms))
    values: dict[str, Any] = {
        "state": str(step.to),
        "from_state": before.state,
        "reason": step.reason,
        "message": step.message,
        "of_job": before.number,
        "of_state": before.state,
        "of_token": before.token,
        **step.values,
        **logged,
    }
    if step.to in TERMINAL:
        values |= {"end_ms": tx.now_ms, "of_now": tx.now_ms, "handled": 0}
    if step.to is JobState.QUEUED:
        values |= {"queued_ms": tx.now_ms, "goes_on_ms": None}
    if step.to is JobState.RUNNING and before.start_ms is None:
        values["start_ms"] = tx.now_ms
    return values, chunk


_ADVANCE = (
    update(jobs)
    .where(jobs.c.number == bindparam("of_job"), jobs.c.state == bindparam("of_state"))
    .where(jobs.c.token == bindparam("of_token"))
    .values(**events.LOGGED)
)
_END = _ADVANCE.values(expire_ms=jobs.c.ttl_ms + bindparam("of_now"))
