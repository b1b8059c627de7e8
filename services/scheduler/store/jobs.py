"""Jobs on disk. Each change of state is guarded in SQL by the table of legal changes and by the fencing token."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC
from typing import Any

from sqlalchemy import Connection, Row, bindparam, exists, false, insert, select, update

from services.scheduler import wire
from services.scheduler.jobs import HELD, TERMINAL, JobState
from services.scheduler.lifecycle.reused import Reused
from services.scheduler.queues.budgets import Budget, Spent
from services.scheduler.records import Job, NewJob, Origin, Pinned, Ref, Work
from services.scheduler.store import events
from services.scheduler.store.compacted import history_of
from services.scheduler.store.needs import needs_of, needs_values
from services.scheduler.store.steps import Step as Step
from services.scheduler.store.steps import advance as advance
from services.scheduler.store.tables import attempts, job_dependencies, job_labels, jobs, nodes
from services.scheduler.store.transaction import Transaction
from tuneforge.names import JobName


def add(tx: Transaction, new: NewJob, depends_on: int | None) -> Job | None:
    """Stores a job, QUEUED or BLOCKED, with its first event; None when its name is taken."""
    added = add_all(tx, [(new, depends_on)])
    return None if added is None else added[0]


def add_all(tx: Transaction, news: Sequence[tuple[NewJob, int | None]]) -> list[Job] | None:
    """Stores jobs of one project by the same statements; None, and nothing is stored, when a name is taken.

    Args:
        tx: The transaction.
        news: Each with the number of the job whose output it waits for.
    """
    by_id = {new.name.job: new for new, _ in news}
    names = {"project": news[0][0].name.project, "job_ids": list(by_id)}
    if len(by_id) < len(news) or tx.connection.execute(_TAKEN, names).first() is not None:
        return None
    begun = {new.name.job: _begun(tx, new, depends_on) for new, depends_on in news}
    rows = tx.connection.execute(_INSERT, [columns for columns, _ in begun.values()])
    stored = {row.job_id: job_of(row) for row in rows}
    added = [stored[job_id] for job_id in by_id]
    _add_labels(tx, added)
    events.write(tx, *(begun[job.name.job][1].chunk_of(job.number) for job in added))
    waits = [{"job": job.number, "depends_on": other} for job in added for other in by_id[job.name.job].waits_for]
    if waits:
        tx.connection.execute(insert(job_dependencies), waits)
    tx.turned.update(job.number for job in added)
    tx.ended.update((job.number, str(job.name)) for job in added if job.state in TERMINAL)
    return added


def _begun(tx: Transaction, new: NewJob, depends_on: int | None) -> tuple[dict[str, Any], events.Beginning]:
    """Returns the columns of a new job, and the beginning of its log."""
    state, reason, message = _first_state(new, tx.now_ms)
    change = wire.Change(job=str(new.name), source="", target=str(state), reason=reason, message=message)
    first = events.begin(tx, str(new.name), lambda seq: wire.state_event(change, seq, tx.now_ms))
    columns = _new_columns(tx, new, depends_on) | {"state": str(state), "reason": reason, "message": message}
    return columns | dict(first.columns), first


def _add_labels(tx: Transaction, added: Sequence[Job]) -> None:
    rows = [
        {"project": job.name.project, "key": key, "value": value, "job": job.number}
        for job in added
        for key, value in job.labels.items()
    ]
    if rows:
        tx.connection.execute(insert(job_labels), rows)


def _new_columns(tx: Transaction, new: NewJob, depends_on: int | None) -> dict[str, Any]:
    return dict(
        uid=secrets.randbits(63),
        project=new.name.project,
        job_id=new.name.job,
        creator=new.creator,
        labels=json.dumps(dict(new.labels)),
        spec=new.spec,
        estimate=new.estimate,
        resource_estimate=new.resource_estimate,
        train_version=new.train.version,
        train_digest=new.train.digest,
        validation_version=new.validation.version if new.validation else None,
        validation_digest=new.validation.digest if new.validation else None,
        architecture_version=new.architecture_version,
        output_model=new.output_model,
        depends_on=depends_on,
        lost_after_ms=new.lost_after_ms,
        keep_checkpoints=new.keep_checkpoints,
        origin_name=new.origin.name if new.origin else None,
        origin_manifest=new.origin.manifest if new.origin else None,
        best_step=new.origin.best_step if new.origin else 0,
        verifies=new.verifies,
        budget=None if new.budget is None else wire.budget_bytes(new.budget),
        retry=new.retry,
        rerun_of=new.rerun_of,
        training_digest=new.training_digest,
        ttl_ms=new.ttl_ms,
        trial=new.trial,
        rows_at_once=new.rows_at_once,
        **_reused_values(tx, new, new.reuses),
        create_ms=tx.now_ms,
        queued_ms=tx.now_ms,
        predicted_ms=wire.predicted_ms(new.resource_estimate),
        **wire.scheduling_values(new.scheduling),
        **needs_values(new.needs),
        **_pinned_values(new.pinned),
    )


_TAKEN = select(jobs.c.number).where(
    jobs.c.project == bindparam("project"), jobs.c.job_id.in_(bindparam("job_ids", expanding=True))
)
_INSERT = insert(jobs).returning(jobs, false().label("is_unreachable"), false().label("is_stalled"))


def _reused_values(tx: Transaction, new: NewJob, reused: Reused | None) -> dict[str, Any]:
    if reused is None:
        return dict.fromkeys(("reused_from", "version", "digest", "end_ms", "expire_ms"))
    return {
        "reused_from": reused.job,
        "version": reused.version,
        "digest": reused.digest,
        "end_ms": tx.now_ms,
        "expire_ms": None if new.ttl_ms is None else tx.now_ms + new.ttl_ms,
    }


def _first_state(new: NewJob, now_ms: int) -> tuple[JobState, str, str]:
    if new.reuses is not None:
        message = f"{new.reuses.job} was trained from the same: its version {new.reuses.version} is the result."
        message += new.reuses.note and f" {new.reuses.note}"
        return JobState.SUCCEEDED, "REUSED", message
    if new.pinned is None:
        return JobState.BLOCKED, "WAITS_FOR_JOB", f"It waits for the output of {new.depends_on}."
    if new.waits_for:
        return JobState.BLOCKED, "WAITS_FOR_JOB", f"It waits for {', '.join(new.waits_for.values())}."
    begin = f" It begins from {new.origin.name}." if new.origin is not None else ""
    start = new.scheduling.start_after
    if start is not None and start.timestamp() * 1000 > now_ms:
        what = f"It starts on {start.astimezone(UTC):%Y-%m-%d %H:%M} UTC at the earliest, by `scheduling.start_after`."
        return JobState.QUEUED, "CREATED", f"{what}{begin}"
    return JobState.QUEUED, "CREATED", f"It waits for a node.{begin}"


def release(tx: Transaction, job: int, new: NewJob) -> bool:
    """Queues a blocked job, pinned as it is admitted now; False when it is not blocked any more or not pinned."""
    if new.pinned is None:
        return False
    values = {
        **_pinned_values(new.pinned),
        **needs_values(new.needs),
        "spec": new.spec,
        "estimate": new.estimate,
        "resource_estimate": new.resource_estimate,
        "predicted_ms": wire.predicted_ms(new.resource_estimate),
        "architecture_version": new.architecture_version,
        "training_digest": new.training_digest,
    }
    message = f"Its base {new.pinned.base.version} is there, and no other job is waited for."
    step = Step(
        to=JobState.QUEUED,
        reason="BASE_READY",
        message=message,
        sources=frozenset({JobState.BLOCKED}),
        values=values,
    )
    return advance(tx, job, step)


def fail(tx: Transaction, job: int, failure: bytes, step: Step) -> bool:
    """Fails a job; `failure` is the serialised reason that its resource keeps."""
    return advance(tx, job, replace(step, values={**step.values, "failure": failure}))


def mark_late(tx: Transaction, job: int, why: str) -> None:
    """Notes that a job misses its deadline, and tells its watchers; once."""
    marked = tx.connection.execute(
        update(jobs)
        .where(jobs.c.number == job, jobs.c.is_late.is_(False))
        .values(is_late=True)
        .returning(jobs.c.project, jobs.c.job_id)
    ).one_or_none()
    if marked is not None:
        events.append_warning(tx, job, str(JobName(marked.project, marked.job_id)), why)
        tx.turned.add(job)


def find(connection: Connection, name: JobName) -> Job | None:
    """Returns a job by name, or None; a removed one is not there."""
    row = connection.execute(_BY_NAME, {"project": name.project, "job_id": name.job}).one_or_none()
    return None if row is None else job_of(row)


def load(connection: Connection, number: int) -> Job:
    """Returns a job by number; it must exist."""
    return job_of(connection.execute(_BY_NUMBER, {"number": number}).one())


NOT_ENDED = [str(state) for state in JobState if state not in TERMINAL]
"""States of jobs that decisions are made for."""


def held_versions(connection: Connection) -> frozenset[tuple[str, str]]:
    """Returns pairs of a job that has not ended and a version that it reads, by name."""
    columns = (jobs.c.base_version, jobs.c.train_version, jobs.c.validation_version)
    rows = connection.execute(select(jobs.c.project, jobs.c.job_id, *columns).where(jobs.c.state.in_(NOT_ENDED)))
    return frozenset(
        (str(JobName(project, job_id)), version)
        for project, job_id, *versions in rows
        for version in versions
        if version
    )


def states_of(connection: Connection, numbers: Collection[int]) -> dict[int, tuple[str, JobState]]:
    """Returns name and state of jobs by number."""
    if not numbers:
        return {}
    rows = connection.execute(
        select(jobs.c.number, jobs.c.project, jobs.c.job_id, jobs.c.state).where(jobs.c.number.in_(numbers))
    )
    return {row.number: (str(JobName(row.project, row.job_id)), JobState(row.state)) for row in rows}


def _whole_rows() -> Any:
    is_unreachable = exists().where(
        attempts.c.job == jobs.c.number,
        attempts.c.attempt == jobs.c.attempt,
        attempts.c.node == nodes.c.node,
        nodes.c.state == "UNREACHABLE",
        jobs.c.state.in_([str(state) for state in HELD]),
    )
    is_stalled = exists().where(
        attempts.c.job == jobs.c.number,
        attempts.c.attempt == jobs.c.attempt,
        attempts.c.stall.is_not(None),
        jobs.c.state.in_(["RUNNING", "CANCELLING"]),
    )
    return select(jobs, is_unreachable.label("is_unreachable"), is_stalled.label("is_stalled"))


# Made once: it takes longer to make them than to run them.
_WHOLE = _whole_rows()
_BY_NUMBER = _WHOLE.where(jobs.c.number == bindparam("number"))
_BY_NAME = _WHOLE.where(
    jobs.c.project == bindparam("project"), jobs.c.job_id == bindparam("job_id"), jobs.c.removal.is_(None)
)


def whole_rows() -> Any:
    """Returns a query of whole jobs, conditions included; removed ones too."""
    return _WHOLE


def _pinned_values(pinned: Pinned | None) -> dict[str, Any]:
    if pinned is None:
        return {"base_version": None, "base_digest": None, "inputs": None}
    return {"base_version": pinned.base.version, "base_digest": pinned.base.digest, "inputs": pinned.inputs}


def _ref(version: str | None, digest: str | None) -> Ref | None:
    return None if version is None or digest is None else Ref(version=version, digest=digest)


def spent_of(row: Row[Any]) -> Spent:
    """Returns what ended attempts were given, by a row."""
    return Spent(device_ms=row.attained_ms, joules=row.joules)


def budget_of(row: Row[Any]) -> Budget | None:
    """Returns what may be spent, by a row."""
    return None if row.budget is None else wire.budget_from_bytes(row.budget)


_LIFE = (
    "retry", "user_faults", "fault_signature", "handled", "rerun_of", "training_digest", "reused_from", "ttl_ms",
    "expire_ms", "rows_at_once",
)  # fmt: skip
"""Columns of a job's life that a record has under the same name."""


def job_of(row: Row[Any]) -> Job:
    """Returns a job from one of `whole_rows`."""
    return Job(
        number=row.number,
        uid=row.uid,
        name=JobName(row.project, row.job_id),
        state=JobState(row.state),
        from_state=row.from_state,
        reason=row.reason,
        message=row.message,
        creator=row.creator,
        labels=json.loads(row.labels),
        spec=row.spec,
        inputs=row.inputs,
        estimate=row.estimate,
        resource_estimate=row.resource_estimate,
        base=_ref(row.base_version, row.base_digest),
        train=Ref(version=row.train_version, digest=row.train_digest),
        validation=_ref(row.validation_version, row.validation_digest),
        architecture_version=row.architecture_version,
        output_model=row.output_model,
        depends_on=row.depends_on,
        needs=needs_of(row),
        attempt=row.attempt,
        token=row.token,
        faults=row.faults,
        not_before_ms=row.not_before_ms,
        failure=row.failure,
        resolved=row.resolved,
        published=_ref(row.version, row.digest),
        step=row.step,
        total_steps=row.total_steps,
        create_ms=row.create_ms,
        start_ms=row.start_ms,
        end_ms=row.end_ms,
        latest_seq=row.latest_seq,
        record_head=row.record_head or b"",
        best_step=row.best_step,
        origin=Origin(name=row.origin_name, manifest=row.origin_manifest) if row.origin_name else None,
        verifies=row.verifies,
        spent=spent_of(row),
        budget=budget_of(row),
        trial=row.trial,
        priority=row.priority,
        **{name: getattr(row, name) for name in _LIFE},
        is_unreachable=row.is_unreachable,
        is_stalled=row.is_stalled,
        is_late=row.is_late,
        scheduling=row.scheduling,
        queued_ms=row.queued_ms,
        work=_work(row),
        **history_of(row),
        is_removed=row.removal is not None,
    )


def _work(row: Row[Any]) -> Work:
    return Work(
        attained_ms=row.attained_ms,
        lost_preempted_ms=row.lost_preempted_ms,
        lost_faults_ms=row.lost_faults_ms,
        saved_ms=row.saved_ms,
        preemptions=row.preemptions,
    )
