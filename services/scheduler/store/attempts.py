"""Attempts on disk: keeping their events, ending them. Every write is fenced by the attempt's token."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, func, select, update

from services.scheduler import wire
from services.scheduler.gangs import breaks_gang, deciding_part, leaves_gang
from services.scheduler.jobs import (
    HELD,
    LIVE_ATTEMPT,
    AttemptEnd,
    AttemptState,
    FaultBudget,
    Faults,
    JobState,
    RetryPolicy,
    Verdict,
    verdict,
)
from services.scheduler.planning.work import cause_of
from services.scheduler.queues.budgets import BUDGET_SPENT
from services.scheduler.records import Attempt, Job
from services.scheduler.store import checkpoints, events, losses, measured_runs, outbox, usage
from services.scheduler.store import jobs as jobs_store
from services.scheduler.store.lost_starts import STARTS_LOOKED_AT, unless_poison
from services.scheduler.store.marks import MARKED
from services.scheduler.store.parts import IS_PART, key_of
from services.scheduler.store.setting import set_values
from services.scheduler.store.tables import attempts, jobs
from services.scheduler.store.transaction import Transaction
from tuneforge.names import JobName

_LIVE = [str(state) for state in LIVE_ATTEMPT]


class SequenceGap(Exception):
    """A node left out events; what is kept stays as it is, and they are asked for again."""

    def __init__(self, before: int, got: int) -> None:
        super().__init__(f"after event {before} the node went on with {got}")


class Fenced(Exception):
    """The attempt is not the job's current one any more, or has ended: nothing it says counts."""


def confirm(tx: Transaction, attempt: Attempt) -> bool:
    """Notes that the node holds the attempt; False when it has ended meanwhile."""
    return _update(tx, attempt, is_confirmed=True)


def mark_running(tx: Transaction, attempt: Attempt) -> None:
    """Notes that the attempt's worker trains."""
    runs = _update(tx, attempt, only_state=AttemptState.STARTING, state=str(AttemptState.RUNNING), is_confirmed=True)
    if runs and attempt.node_rank == 0:
        _job_runs(tx, attempt)


def note_rendezvous(tx: Transaction, attempt: Attempt, address: str) -> None:
    """Notes where the part with rank 0 waits for the others, so that they can be started."""
    tx.connection.execute(update(attempts).where(_same_attempt(attempt)).values(rendezvous=address))
    tx.turned.add(attempt.job)


def _same_attempt(attempt: Attempt) -> Any:
    return and_(attempts.c.job == attempt.job, attempts.c.token == attempt.token)


def _job_runs(tx: Transaction, attempt: Attempt) -> None:
    parts = parts_of(tx.connection, attempt.job, attempt.name.attempt)
    nodes = ", ".join(f"nodes/{part.node}" for part in parts)
    step = jobs_store.Step(
        to=JobState.RUNNING,
        reason="STARTED",
        message=f"Attempt {attempt.name.attempt} runs on {nodes}.",
        token=attempt.token,
    )
    jobs_store.advance(tx, attempt.job, step)


def mark_stopping(tx: Transaction, attempt: Attempt) -> None:
    """Notes that the attempt's node was asked to stop it."""
    _update(tx, attempt, state=str(AttemptState.STOPPING), is_confirmed=True)


def _update(tx: Transaction, attempt: Attempt, only_state: AttemptState | None = None, **values: Any) -> bool:
    statement = _UPDATE if only_state is None else _UPDATE.where(attempts.c.state == str(only_state))
    return set_values(tx.connection, statement, values | key_of(attempt)) == 1


_UPDATE = update(attempts).where(*IS_PART, attempts.c.token == bindparam("of_token"), attempts.c.state.in_(_LIVE))


def keep_events(tx: Transaction, attempt: Attempt, batch: wire.Batch) -> int:
    """Keeps events of an attempt that were not kept before, and returns the new high-water mark.

    Args:
        tx: The transaction; the mark moves in it together with the log.
        attempt: The attempt that they come from.
        batch: Events in the order of their `seq`; those up to the mark are dropped as repeats.

    Raises:
        Fenced: the attempt is not the current one of its job, or has ended.
        SequenceGap: an event before a new one is missing, between two of them too: a batch may be of several messages.
    """
    row = tx.connection.execute(_MARK, key_of(attempt)).one_or_none()
    if row is None:
        raise Fenced(str(attempt.name))
    mark = int(row.last_seq)
    fresh = batch.after(mark)
    if not fresh.events:
        return mark
    for before, event in enumerate(fresh.events, mark):
        if event.seq != before + 1:
            raise SequenceGap(before, event.seq)
    for part in fresh.split(events.EVENTS_PER_CHUNK):
        events.append(tx, attempt.job, part.encode)
    has_stepped = _apply(tx, attempt, fresh)
    if has_stepped and row.first_step_ms is None and attempt.node_rank == 0:
        losses.note_progress(tx, attempt)
    return fresh.last_seq


_MARK = (
    select(attempts.c.last_seq, attempts.c.first_step_ms)
    .join(jobs, jobs.c.number == attempts.c.job)
    .where(
        *IS_PART,
        attempts.c.state.in_(_LIVE),
        jobs.c.token == bindparam("of_token"),
        jobs.c.state.in_([str(state) for state in HELD]),
    )
)


def _apply(tx: Transaction, attempt: Attempt, fresh: wire.Batch) -> bool:
    """Moves what resources show of a run: step, total, resume point, resolved spec, checkpoints, outcome.

    Returns:
        Whether it has made a step.
    """
    facts = fresh.facts()
    values: dict[str, Any] = {"last_seq": fresh.last_seq}
    job_values: dict[str, Any] = {}
    if facts.step is not None:
        values |= {"step": facts.step, "first_step_ms": func.coalesce(attempts.c.first_step_ms, tx.now_ms)}
        job_values |= {"step": facts.step, "total_steps": facts.total_steps}
    if facts.resumed_step is not None:
        values["resumed_step"] = facts.resumed_step
    if facts.outcome is not None:
        values["outcome"] = facts.outcome
    if facts.joules is not None:
        values["joules"] = facts.joules
    _update(tx, attempt, **values)
    if facts.best_step is not None:
        job_values["best_step"] = facts.best_step
    if facts.resolved is not None:
        first = func.coalesce(jobs.c.resolved, facts.resolved)
        job_values["resolved"] = facts.resolved if attempt.rows_at_once else first
    if job_values:
        tx.connection.execute(update(jobs).where(jobs.c.number == attempt.job).values(**job_values))
    if facts.checkpoints:
        saved = [checkpoint(attempt.node, attempt.name.attempt) for checkpoint in facts.checkpoints]
        checkpoints.keep_saved(tx, attempt.job, saved)
    if facts.durable:
        checkpoints.keep_durable(tx, attempt.job, attempt.node, attempt.name.attempt, facts.durable)
    return facts.step is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """An attempt's end with all that is needed to judge it."""

    attempt: Attempt
    end: AttemptEnd
    retry: RetryPolicy
    jitter: float
    """Random number in [0, 1) for the wait before a retry."""


def finish(tx: Transaction, ending: Ending) -> Verdict | None:
    """Ends an attempt and moves its job, once: a second end of the same attempt changes nothing and returns None.

    Of an attempt on several nodes this ends one part, and the job moves with the last one; until then the others are to
    be stopped when this one has ended badly.
    """
    attempt, end = ending.attempt, ending.end
    ended = end_part(tx, attempt, end)
    if ended is None:
        return None
    job = jobs_store.load(tx.connection, attempt.job)
    if job.token != attempt.token:
        return None
    whole = end if attempt.nodes == 1 else _end_of_all(tx, attempt, end)
    if whole is None:
        return None
    first = ended if ended.node_rank == 0 else load(tx.connection, attempt.job, attempt.name.attempt)
    return _move(tx, job, first, replace(ending, end=whole))


def end_part(tx: Transaction, attempt: Attempt, end: AttemptEnd) -> Attempt | None:
    """Ends a part of an attempt, charges what it was given and returns it; None: it has ended before. Its job stays."""
    has_ended = _update(
        tx,
        attempt,
        state=str(end.state),
        failure=wire.failure_bytes(end.failure) if end.failure else None,
        end_ms=tx.now_ms,
    )
    if not has_ended:
        return None
    ended = load(tx.connection, attempt.job, attempt.name.attempt, attempt.node_rank)
    usage.charge(tx, ended)
    return ended


def _end_of_all(tx: Transaction, attempt: Attempt, end: AttemptEnd) -> AttemptEnd | None:
    """Returns the end of an attempt one part of which has just ended; None while others have not."""
    parts = parts_of(tx.connection, attempt.job, attempt.name.attempt)
    if any(part.state in LIVE_ATTEMPT for part in parts):
        marks = {"is_broken": breaks_gang(end), "is_leaving": leaves_gang(end)}
        for mark in (name for name, is_set in marks.items() if is_set):
            tx.connection.execute(update(attempts).where(_same_attempt(attempt)).values({mark: True}))
        tx.turned.add(attempt.job)
        return None
    ends = [wire.end_of_part(part) for part in parts]
    return ends[deciding_part(ends)]


def _move(tx: Transaction, job: Job, kept: Attempt, ending: Ending) -> Verdict | None:
    """Moves a job whose current attempt has ended; `kept` is its first part.

    A success becomes PUBLISHING only where the token is still the job's (the fence), and writes the publish row into
    the outbox in the same transaction.
    """
    attempt = ending.attempt
    policy = wire.retry_policy_of(job.retry, ending.retry)
    rows = 0 if kept.step >= job.total_steps > 0 else wire.rows_at_once(job)
    faults = Faults(infrastructure=job.faults, user=job.user_faults, signature=job.fault_signature, rows_at_once=rows)
    ruling = verdict(job.state, replace(ending.end, step=kept.step), faults, policy, ending.jitter)
    if ruling is None:
        return None
    _use_budget(tx, attempt, ruling)
    if ruling.uses is FaultBudget.INFRASTRUCTURE:
        ruling = unless_poison(ruling, list_newest(tx.connection, attempt.job, None, STARTS_LOOKED_AT))
    if ruling.to is JobState.PUBLISHING and job.state is JobState.STARTING:
        _job_runs(tx, attempt)  # it ended so fast that nobody saw it run
    values = _fault_values(job, ruling)
    if ruling.to is JobState.PUBLISHING:
        values["handled"] = MARKED
    if ruling.to is JobState.QUEUED:
        values["not_before_ms"] = tx.now_ms + round(ruling.delay_s * 1000)
    if ruling.failure is not None:
        values["failure"] = wire.failure_bytes(ruling.failure)
    reason, message = ruling.reason, ruling.message
    if ruling.to is JobState.PAUSED and job.reason == BUDGET_SPENT:
        reason, message = BUDGET_SPENT, f"{job.message} {message}"
    step = jobs_store.Step(to=ruling.to, reason=reason, message=message, token=attempt.token, values=values)
    if not jobs_store.advance(tx, attempt.job, step):
        return None
    losses.note_end(tx, attempt, cause_of(job.state, ruling))
    if ruling.to is JobState.PUBLISHING:
        job = jobs_store.load(tx.connection, job.number)
        _keep_measures(tx, job, kept)
        outbox.add(tx, job.number, attempt.token, wire.publish_request(job, kept) if job.verifies is None else b"")
    return ruling


def _fault_values(job: Job, ruling: Verdict) -> dict[str, Any]:
    match ruling.uses:
        case FaultBudget.INFRASTRUCTURE:
            return {"faults": job.faults + 1}
        case FaultBudget.USER:
            return {"user_faults": job.user_faults + 1, "fault_signature": ruling.signature}
        case FaultBudget.MICRO_BATCH:
            return {"rows_at_once": ruling.rows_at_once}
    return {}


def _use_budget(tx: Transaction, attempt: Attempt, ruling: Verdict) -> None:
    if ruling.uses is not None:
        key = {"of_job": attempt.job, "of_token": attempt.token}
        tx.connection.execute(_UPDATE_ALL, {"fault_budget": str(ruling.uses), **key})


_UPDATE_ALL = update(attempts).where(attempts.c.job == bindparam("of_job"), attempts.c.token == bindparam("of_token"))
"""Of all parts of an attempt."""


def _keep_measures(tx: Transaction, job: Job, attempt: Attempt) -> None:
    """Keeps what a run was measured at, which corrects the predictions for the next ones."""
    if (
        job.verifies is None
        and attempt.outcome is not None
        and (found := wire.measured_run(job, attempt.outcome)) is not None
    ):
        row_tokens, run = found
        measured_runs.add(tx, job.number, job.train.digest, row_tokens, run)


def close(tx: Transaction, attempt: Attempt) -> None:
    """Notes that the node was told that the attempt's end is kept, or that it holds the attempt no more."""
    key = {"of_job": attempt.job, "of_token": attempt.token, "of_rank": attempt.node_rank}
    tx.connection.execute(_CLOSE, key)


_CLOSE = _UPDATE_ALL.where(attempts.c.node_rank == bindparam("of_rank")).values(is_closed=True)


def load(connection: Connection, job: int, number: int, node_rank: int = 0) -> Attempt:
    """Returns a part of an attempt; it must exist."""
    return _attempt(connection.execute(_PART, {"job": job, "attempt": number, "node_rank": node_rank}).one())


def parts_of(connection: Connection, job: int, number: int) -> list[Attempt]:
    """Returns all parts of an attempt, by rank."""
    return [_attempt(row) for row in connection.execute(_PARTS, {"job": job, "attempt": number})]


def newest_of(connection: Connection, numbers: Collection[int]) -> list[Attempt]:
    """Returns all parts of the newest attempts of jobs, by rank."""
    return [_attempt(row) for row in connection.execute(_NEWEST, {"of_jobs": list(numbers)})]


def open_ones(connection: Connection) -> list[Attempt]:
    """Returns parts of attempts that may still run or whose node does not yet know that their end is kept."""
    return [_attempt(row) for row in connection.execute(_OPEN)]


def find(connection: Connection, job: JobName, number: int, node: str) -> Attempt | None:
    """Returns an attempt by name, by its part on a node or else by its first one; None: there is no such attempt."""
    asked = {"project": job.project, "job_id": job.job, "attempt": number}
    parts = [_attempt(row) for row in connection.execute(_NAMED, asked)]
    return next((part for part in parts if part.node == node), parts[0] if parts else None)


def list_newest(connection: Connection, job: int, before: int | None, limit: int) -> list[list[Attempt]]:
    """Returns attempts of a job by their parts, newest first, those below `before` when it is given."""
    numbers = select(attempts.c.attempt).where(attempts.c.job == job, attempts.c.node_rank == 0)
    if before is not None:
        numbers = numbers.where(attempts.c.attempt < before)
    shown = list(connection.execute(numbers.order_by(attempts.c.attempt.desc()).limit(limit)).scalars())
    return [parts_of(connection, job, number) for number in shown]


_QUERY = select(attempts, jobs.c.project, jobs.c.job_id).join(jobs, jobs.c.number == attempts.c.job)
_OPEN = _QUERY.where(attempts.c.is_closed.is_(False))
_PARTS = _QUERY.where(attempts.c.job == bindparam("job"), attempts.c.attempt == bindparam("attempt")).order_by(
    attempts.c.node_rank
)
_NAMED = _QUERY.where(
    jobs.c.project == bindparam("project"),
    jobs.c.job_id == bindparam("job_id"),
    attempts.c.attempt == bindparam("attempt"),
).order_by(attempts.c.node_rank)
_NEWEST = _QUERY.where(
    jobs.c.number.in_(bindparam("of_jobs", expanding=True)), attempts.c.attempt == jobs.c.attempt
).order_by(jobs.c.number, attempts.c.node_rank)
_PART = _PARTS.where(attempts.c.node_rank == bindparam("node_rank"))


def _attempt(row: Row[Any]) -> Attempt:
    return Attempt(
        job=row.job,
        name=JobName(row.project, row.job_id).attempt(row.attempt),
        node=row.node,
        token=row.token,
        state=AttemptState(row.state),
        is_confirmed=row.is_confirmed,
        is_closed=row.is_closed,
        failure=row.failure,
        outcome=row.outcome,
        resumed_step=row.resumed_step,
        step=row.step,
        last_seq=row.last_seq,
        create_ms=row.create_ms,
        end_ms=row.end_ms,
        fault_budget=row.fault_budget,
        node_rank=row.node_rank,
        nodes=row.nodes,
        rendezvous=row.rendezvous,
        is_broken=row.is_broken,
        is_leaving=row.is_leaving,
        slots=row.slots,
        watts=row.watts,
        joules=row.joules,
        first_step_ms=row.first_step_ms,
        rows_at_once=row.rows_at_once,
    )
