"""Jobs on disk. Each change of state is guarded in SQL by the table of legal changes and by the fencing token."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, Row, exists, insert, select, update

from services.scheduler import wire
from services.scheduler.jobs import HELD, TERMINAL, JobState, sources_of
from services.scheduler.queues.budgets import Budget, Spent
from services.scheduler.records import ActiveJob, Job, NewJob, Origin, Pinned, Ref, Reused, Work
from services.scheduler.store import checkpoints, events
from services.scheduler.store.needs import needs_of, needs_values
from services.scheduler.store.tables import attempts, job_labels, jobs, nodes
from services.scheduler.store.transaction import Transaction
from tuneforge.names import JobName

_ACTIVE_COLUMNS = (
    "number", "project", "job_id", "state", "attempt", "token", "depends_on", "not_before_ms", "lost_after_ms",
    "attained_ms", "joules", "budget",
    "nodes", "devices", "peak_bytes", "host_bytes", "cpu_millis", "node_labels", "exclusions", "create_ms", "priority",
    "is_preemptible", "start_after_ms", "deadline_ms", "is_late", "queued_ms", "predicted_ms", "step", "total_steps",
)  # fmt: skip
_HOLDING = frozenset(str(state) for state in HELD)


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


def advance(tx: Transaction, job: int, step: Step) -> bool:
    """Makes a change of state and writes its event; False when the job is not where it was believed to be."""
    legal = sources_of(step.to)
    allowed = legal if step.sources is None else legal & step.sources
    before = tx.connection.execute(
        select(jobs.c.state, jobs.c.project, jobs.c.job_id, jobs.c.start_ms, jobs.c.origin_name)
        .where(jobs.c.number == job)
        .with_for_update()
    ).one_or_none()
    if before is None:
        return False
    guard = [jobs.c.number == job, jobs.c.state.in_([str(state) for state in allowed]), jobs.c.state == before.state]
    if step.token is not None:
        guard.append(jobs.c.token == step.token)
    values: dict[str, Any] = {
        "state": str(step.to),
        "from_state": before.state,
        "reason": step.reason,
        "message": step.message,
        **step.values,
    }
    if step.to in TERMINAL:
        values |= {"end_ms": tx.now_ms, "expire_ms": jobs.c.ttl_ms + tx.now_ms, "handled": 0}
    if step.to is JobState.QUEUED:
        values["queued_ms"] = tx.now_ms
    if step.to is JobState.RUNNING and before.start_ms is None:
        values["start_ms"] = tx.now_ms
    if tx.connection.execute(update(jobs).where(*guard).values(**values)).rowcount != 1:
        return False
    events.append_state(
        tx,
        job,
        wire.Change(
            job=str(JobName(before.project, before.job_id)),
            source=before.state,
            target=str(step.to),
            reason=step.reason,
            message=step.message,
        ),
    )
    tx.turned.add(job)
    if step.to in TERMINAL:
        tx.ended.add(job)
        if before.origin_name:
            checkpoints.release_origin(tx, before.origin_name)
    return True


def add(tx: Transaction, new: NewJob, depends_on: int | None) -> int | None:
    """Stores a job, QUEUED or BLOCKED, with its first event; None when its name is taken."""
    taken = select(jobs.c.number).where(jobs.c.project == new.name.project, jobs.c.job_id == new.name.job)
    if tx.connection.execute(taken).one_or_none() is not None:
        return None
    state, reason, message = _first_state(new)
    number = tx.connection.execute(
        insert(jobs)
        .values(
            uid=secrets.randbits(63),
            project=new.name.project,
            job_id=new.name.job,
            state=str(state),
            reason=reason,
            message=message,
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
            verifies=new.verifies,
            budget=None if new.budget is None else wire.budget_bytes(new.budget),
            retry=new.retry,
            rerun_of=new.rerun_of,
            training_digest=new.training_digest,
            ttl_ms=new.ttl_ms,
            **(_reused_values(tx, new, new.reuses) if new.reuses is not None else {}),
            create_ms=tx.now_ms,
            queued_ms=tx.now_ms,
            predicted_ms=wire.predicted_ms(new.resource_estimate),
            **wire.scheduling_values(new.scheduling),
            **needs_values(new.needs),
            **(_pinned_values(new.pinned) if new.pinned else {}),
        )
        .returning(jobs.c.number)
    ).scalar_one()
    for key, value in new.labels.items():
        row = {"project": new.name.project, "key": key, "value": value, "job": number}
        tx.connection.execute(insert(job_labels).values(**row))
    events.append_state(
        tx, number, wire.Change(job=str(new.name), source="", target=str(state), reason=reason, message=message)
    )
    tx.turned.add(number)
    if state in TERMINAL:
        tx.ended.add(number)
    return int(number)


def _reused_values(tx: Transaction, new: NewJob, reused: Reused) -> dict[str, Any]:
    return {
        "reused_from": reused.job,
        "version": reused.version.version,
        "digest": reused.version.digest,
        "end_ms": tx.now_ms,
        "expire_ms": None if new.ttl_ms is None else tx.now_ms + new.ttl_ms,
    }


def _first_state(new: NewJob) -> tuple[JobState, str, str]:
    if new.reuses is not None:
        message = f"{new.reuses.job} was trained from the same: its version {new.reuses.version.version} is the result."
        return JobState.SUCCEEDED, "REUSED", message
    if new.pinned is None:
        return JobState.BLOCKED, "WAITS_FOR_JOB", f"It waits for the output of {new.depends_on}."
    begin = f" It begins from {new.origin.name}." if new.origin is not None else ""
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
    message = f"Its base {new.pinned.base.version} is there."
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
    is_there = jobs.c.removal.is_(None)
    query = whole_rows().where(jobs.c.project == name.project, jobs.c.job_id == name.job, is_there)
    row = connection.execute(query).one_or_none()
    return None if row is None else job_of(row)


def load(connection: Connection, number: int) -> Job:
    """Returns a job by number; it must exist."""
    return job_of(connection.execute(whole_rows().where(jobs.c.number == number)).one())


def active(connection: Connection) -> list[ActiveJob]:
    """Returns what decisions need of all jobs that have not ended, oldest first."""
    columns = [jobs.c[name] for name in _ACTIVE_COLUMNS]
    known = [str(state) for state in JobState if state not in TERMINAL]
    rows = connection.execute(select(*columns).where(jobs.c.state.in_(known)).order_by(jobs.c.number)).all()
    places = checkpoints.newest_nodes(connection, [row.number for row in rows if row.attempt])
    durable = checkpoints.durable_steps(connection, [row.number for row in rows if row.state in _HOLDING])
    return [
        ActiveJob(
            number=row.number,
            name=JobName(row.project, row.job_id),
            state=JobState(row.state),
            token=row.token,
            depends_on=row.depends_on,
            not_before_ms=row.not_before_ms,
            lost_after_ms=row.lost_after_ms,
            needs=needs_of(row),
            checkpoint_node=places.get(row.number),
            create_ms=row.create_ms,
            spent=_spent(row),
            budget=_budget(row),
            priority=row.priority,
            is_preemptible=row.is_preemptible,
            start_after_ms=row.start_after_ms or 0,
            deadline_ms=row.deadline_ms,
            is_late=row.is_late,
            queued_ms=row.queued_ms,
            predicted_ms=row.predicted_ms,
            step=row.step,
            total_steps=row.total_steps,
            durable_step=durable.get(row.number, 0),
        )
        for row in rows
    ]


def held_versions(connection: Connection) -> frozenset[tuple[str, str]]:
    """Returns pairs of a job that has not ended and a version that it reads, by name."""
    known = [str(state) for state in JobState if state not in TERMINAL]
    columns = (jobs.c.base_version, jobs.c.train_version, jobs.c.validation_version)
    rows = connection.execute(select(jobs.c.project, jobs.c.job_id, *columns).where(jobs.c.state.in_(known)))
    return frozenset(
        (str(JobName(project, job_id)), version)
        for project, job_id, *versions in rows
        for version in versions
        if version
    )


def states_of(connection: Connection, numbers: Collection[int]) -> dict[int, tuple[str, JobState]]:
    """Returns name and state of jobs by number."""
    rows = connection.execute(
        select(jobs.c.number, jobs.c.project, jobs.c.job_id, jobs.c.state).where(jobs.c.number.in_(numbers))
    )
    return {row.number: (str(JobName(row.project, row.job_id)), JobState(row.state)) for row in rows}


def whole_rows() -> Any:
    """Returns a query of whole jobs, conditions included; removed ones too."""
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


def _pinned_values(pinned: Pinned) -> dict[str, Any]:
    return {"base_version": pinned.base.version, "base_digest": pinned.base.digest, "inputs": pinned.inputs}


def _ref(version: str | None, digest: str | None) -> Ref | None:
    return None if version is None or digest is None else Ref(version=version, digest=digest)


def _spent(row: Row[Any]) -> Spent:
    return Spent(device_ms=row.attained_ms, joules=row.joules)


def _budget(row: Row[Any]) -> Budget | None:
    return None if row.budget is None else wire.budget_from_bytes(row.budget)


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
        spent=_spent(row),
        budget=_budget(row),
        retry=row.retry,
        user_faults=row.user_faults,
        fault_signature=row.fault_signature,
        rerun_of=row.rerun_of,
        training_digest=row.training_digest,
        reused_from=row.reused_from,
        ttl_ms=row.ttl_ms,
        expire_ms=row.expire_ms,
        is_unreachable=row.is_unreachable,
        is_stalled=row.is_stalled,
        is_late=row.is_late,
        scheduling=row.scheduling,
        queued_ms=row.queued_ms,
        work=_work(row),
    )


def _work(row: Row[Any]) -> Work:
    return Work(
        attained_ms=row.attained_ms,
        lost_preempted_ms=row.lost_preempted_ms,
        lost_faults_ms=row.lost_faults_ms,
        saved_ms=row.saved_ms,
        preemptions=row.preemptions,
    )
