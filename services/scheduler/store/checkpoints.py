"""The index of checkpoints: which a node has, which the blob store has, which stay, and what the registry is to keep.

A row is there while a node or the blob store has the checkpoint. What the registry is told is written with the change
that causes it, and told in that order (`blob_holds`), so that no crash leaves one here whose blobs are collected.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, bindparam, delete, func, insert, select, update

from services.scheduler.jobs import TERMINAL, JobState
from services.scheduler.records import Checkpoint, Origin
from services.scheduler.store import changes
from services.scheduler.store.setting import set_values
from services.scheduler.store.tables import attempts, blob_holds, checkpoints, jobs
from services.scheduler.store.transaction import Transaction
from services.scheduler.wire.events import Copied
from services.scheduler.wire.specs import spec_from_bytes
from tuneforge.names import CheckpointName, JobName

_TABLE = checkpoints.c
_LIVE = jobs.c.state.in_([str(state) for state in JobState if state not in TERMINAL])
"""Jobs that have not ended; said so that the index on states finds them among all that have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobHold:
    """What the registry is to be told of the blobs of a checkpoint."""

    id: int
    name: str
    manifest: bytes | None
    """Serialised `Manifest` of what is to be kept; None: what was kept may go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Policy:
    name: JobName
    keep_last: int
    best_step: int
    """Step that stays as the best one; 0: none."""


def keep_saved(tx: Transaction, job: int, saved: Sequence[Checkpoint]) -> None:
    """Adds checkpoints that a node has saved, and forgets of those that it has dropped for them that it had them."""
    for checkpoint in saved:
        known = find(tx.connection, job, checkpoint.step)
        if known is not None and known.manifest is not None:  # the copy of an earlier attempt's is as good
            _set(tx, job, [checkpoint.step], node=checkpoint.node)
        else:
            _put(tx, job, checkpoint, known)
    policy = _policy(tx.connection, job)
    for node in {checkpoint.node for checkpoint in saved}:
        held = select(_TABLE.step).where(_TABLE.job == job, _TABLE.node == node)
        newest = held.order_by(_TABLE.step.desc()).limit(policy.keep_last)
        dropped = (
            _TABLE.job == job, _TABLE.node == node, _TABLE.step.not_in(newest), _TABLE.step != policy.best_step
        )  # fmt: skip
        steps = list(tx.connection.execute(select(_TABLE.step).where(*dropped)).scalars())
        _set(tx, job, steps, node="")
    _drop_gone(tx, job)


def keep_durable(tx: Transaction, job: int, node: str, attempt: int, copied: Sequence[Copied]) -> None:
    """Notes that checkpoints are in the blob store; older copies than the policy keeps may go."""
    policy = _policy(tx.connection, job)
    for copy in copied:
        known = find(tx.connection, job, copy.step)
        if known is None or known.digest != copy.digest:  # a kill came between its save and the word of it
            found = Checkpoint(
                step=copy.step,
                attempt=attempt,
                node=node,
                digest=copy.digest,
                size_bytes=copy.size_bytes,
                create_ms=copy.time_ms,
            )
            _put(tx, job, found, known)
        _set(tx, job, [copy.step], manifest=copy.manifest, durable_ms=copy.time_ms)
        _tell(tx, str(policy.name.checkpoint(copy.step)), copy.manifest)
    release_old(tx, job)


def release_old(tx: Transaction, job: int) -> None:
    """Lets go of copies in the blob store, but for the newest, the best, pinned ones, and what a job begins from."""
    policy = _policy(tx.connection, job)
    durable = [each for each in list_newest(tx.connection, job, None, None) if each.manifest is not None]
    begun_from = needed_by_jobs(tx.connection)
    for checkpoint in durable[policy.keep_last :]:
        name = str(policy.name.checkpoint(checkpoint.step))
        if not checkpoint.is_pinned and checkpoint.step != policy.best_step and name not in begun_from:
            release(tx, job, name, checkpoint.step)


def release_origin(tx: Transaction, name: str) -> None:
    """Lets go of what a job that began from a checkpoint needed and has ended, unless something else keeps it."""
    for begin in _beginnings(tx.connection, CheckpointName.parse(name)):
        job = _number(tx.connection, begin)
        if job is not None:
            release_old(tx, job)


def release(tx: Transaction, job: int, name: str, step: int) -> None:
    """Lets go of the copy of one checkpoint."""
    changes.touch(tx, [job])  # what its run would lose is another thing now
    _set(tx, job, [step], manifest=None, durable_ms=None)
    _tell(tx, name, None)
    _drop_gone(tx, job)


def forget(tx: Transaction, job: int, name: str, step: int) -> None:
    """Takes a checkpoint out of the index; its copy may go."""
    _tell(tx, name, None)
    changes.touch(tx, [job])  # where its job goes on is another thing now
    tx.connection.execute(delete(checkpoints).where(_TABLE.job == job, _TABLE.step == step))


def set_pinned(tx: Transaction, job: int, step: int, *, is_pinned: bool) -> None:
    """Pins a checkpoint or unpins it; an unpinned one goes when the policy does not keep it."""
    _set(tx, job, [step], is_pinned=is_pinned)
    if not is_pinned:
        release_old(tx, job)


def find(connection: Connection, job: int, step: int) -> Checkpoint | None:
    """Returns a checkpoint of a job, or None."""
    row = connection.execute(_OF_STEP, {"job": job, "step": step}).one_or_none()
    return None if row is None else _checkpoint(row)


def find_by_name(connection: Connection, name: CheckpointName) -> Checkpoint | None:
    """Returns a checkpoint by name, or None."""
    number = _number(connection, name)
    return None if number is None else find(connection, number, name.step)


def list_newest(connection: Connection, job: int, before_step: int | None, limit: int | None) -> list[Checkpoint]:
    """Returns checkpoints of a job, newest first, those below `before_step` when it is given."""
    query = _query(job).order_by(_TABLE.step.desc()).limit(limit)
    if before_step is not None:
        query = query.where(_TABLE.step < before_step)
    return [_checkpoint(row) for row in connection.execute(query)]


def newest_nodes_query(numbers: Select[int]) -> Any:
    """Returns a query of the nodes that have checkpoints of jobs, oldest first: the last one of a job has its newest.

    Args:
        numbers: Selects the jobs; a list of ten thousand would be more than a statement takes.
    """
    return select(_TABLE.job, _TABLE.node).where(_TABLE.job.in_(numbers), _TABLE.node != "").order_by(_TABLE.step)


def durable_query(numbers: Select[int]) -> Any:
    """Returns a query of the checkpoints of jobs in the blob store, oldest first: steps, and the nodes that made them.

    That is not where the newest one is: an attempt on another node may have come further, and lost it.
    """
    return _MADE.where(_TABLE.job.in_(numbers), _TABLE.manifest.is_not(None)).order_by(_TABLE.step)


def made_by(connection: Connection, name: CheckpointName) -> str | None:
    """Returns the node that made a checkpoint; None: it is gone."""
    job = _number(connection, name)
    row = connection.execute(_MADE.where(_TABLE.job == job, _TABLE.step == name.step)).one_or_none()
    return None if row is None else str(row.node)


_MADE = select(_TABLE.job, _TABLE.step, attempts.c.node).join_from(
    checkpoints,
    attempts,
    and_(attempts.c.job == _TABLE.job, attempts.c.attempt == _TABLE.attempt, attempts.c.node_rank == 0),
)


def needed_by_jobs(connection: Connection) -> Mapping[str, Sequence[str]]:
    """Returns the checkpoints of other jobs that jobs which have not ended need, each with the names of these jobs.

    They begin from it, or it is the best one before that, whose weights may become their result.
    """
    columns = jobs.c.project, jobs.c.job_id, jobs.c.origin_name, jobs.c.best_step
    needed: dict[str, list[str]] = {}
    best_of = functools.cache(lambda begin, best_step: best_before(connection, begin, best_step))
    for row in connection.execute(select(*columns).where(_LIVE, jobs.c.origin_name.is_not(None))):
        begin = CheckpointName.parse(row.origin_name)
        for name in {begin, best_of(begin, row.best_step) or begin}:
            needed.setdefault(str(name), []).append(str(JobName(row.project, row.job_id)))
    return needed


def best_before(connection: Connection, begin: CheckpointName, best_step: int) -> CheckpointName | None:
    """Returns the checkpoint that a job may need beside that which it begins from; None: none, or one of its own.

    It is of the job that it begins from, or of one that this one began from in its turn: steps count on along branches.

    Args:
        connection: The database.
        begin: Where it begins.
        best_step: Step of its lowest validation loss so far.
    """
    if not 0 < best_step < begin.step:
        return None
    saved_by = begin
    for earlier in _beginnings(connection, begin):
        if earlier.step < best_step:
            break
        saved_by = earlier
    return saved_by.parent.checkpoint(best_step)


def _beginnings(connection: Connection, begin: CheckpointName) -> Iterator[CheckpointName]:
    """Yields a checkpoint, then the one that its job began from, and so on to the job that began at the beginning."""
    found: str | None = str(begin)
    while found is not None:
        yield (name := CheckpointName.parse(found))
        query = select(jobs.c.origin_name).where(jobs.c.project == name.project, jobs.c.job_id == name.job)
        found = connection.execute(query).scalar_one_or_none()


def with_best(connection: Connection, origin: Origin, best_step: int) -> Origin:
    """Returns where a job begins with the best checkpoint before that, if the blob store has it; arguments as above."""
    name = best_before(connection, CheckpointName.parse(origin.name), best_step)
    found = find_by_name(connection, name) if name else None
    return replace(origin, best_name=str(name or ""), best=found.manifest if found else None)


def pending_holds(connection: Connection) -> list[BlobHold]:
    """Returns what the registry is to be told next of each checkpoint."""
    rows = connection.execute(_PENDING)
    return [BlobHold(id=row.id, name=row.name, manifest=row.manifest) for row in rows]


_FIRST = select(func.min(blob_holds.c.id)).group_by(blob_holds.c.name)
_PENDING = select(blob_holds).where(blob_holds.c.id.in_(_FIRST)).order_by(blob_holds.c.id)


def told(tx: Transaction, hold: BlobHold) -> None:
    """Notes that the registry was told."""
    tx.connection.execute(delete(blob_holds).where(blob_holds.c.id == hold.id))


def lost(tx: Transaction, hold: BlobHold) -> None:
    """Notes that the registry does not have what it was to keep: the checkpoint is not durable after all."""
    told(tx, hold)
    name = CheckpointName.parse(hold.name)
    job = _number(tx.connection, name)
    if job is None:
        return
    tx.connection.execute(
        update(checkpoints)
        .where(_TABLE.job == job, _TABLE.step == name.step, _TABLE.manifest == hold.manifest)
        .values(manifest=None, durable_ms=None)
    )
    changes.touch(tx, [job])
    _drop_gone(tx, job)


def _number(connection: Connection, name: CheckpointName) -> int | None:
    """Returns the number of a checkpoint's job, or None."""
    is_there = jobs.c.removal.is_(None)
    query = select(jobs.c.number).where(jobs.c.project == name.project, jobs.c.job_id == name.job, is_there)
    number: int | None = connection.execute(query).scalar_one_or_none()
    return number


def _tell(tx: Transaction, name: str, manifest: bytes | None) -> None:
    tx.connection.execute(insert(blob_holds).values(name=name, manifest=manifest))


def _put(tx: Transaction, job: int, checkpoint: Checkpoint, known: Checkpoint | None) -> None:
    """Writes a checkpoint in place of the one of the same step; a pin is of the step."""
    tx.connection.execute(_TAKE_OUT, {"job": job, "step": checkpoint.step})
    tx.connection.execute(
        _PUT_IN,
        {
            "job": job,
            "step": checkpoint.step,
            "attempt": checkpoint.attempt,
            "node": checkpoint.node,
            "digest": checkpoint.digest,
            "size_bytes": checkpoint.size_bytes,
            "create_ms": checkpoint.create_ms,
            "is_pinned": known is not None and known.is_pinned,
        },
    )


def _drop_gone(tx: Transaction, job: int) -> None:
    """Takes out what neither a node nor the blob store has any more."""
    tx.connection.execute(_GONE, {"job": job})


def _set(tx: Transaction, job: int, steps: Sequence[int], **values: Any) -> None:
    set_values(tx.connection, _STEPS, {"of_job": job, "of_steps": list(steps), **values})


def _policy(connection: Connection, job: int) -> _Policy:
    row = connection.execute(_POLICY, {"job": job}).one()
    spec = spec_from_bytes(row.spec)
    keeps_best = spec.checkpointing.keep_best or spec.evaluation.use_best
    return _Policy(
        name=JobName(row.project, row.job_id),
        keep_last=row.keep_checkpoints,
        best_step=row.best_step if keeps_best else 0,
    )


def _query(job: int) -> Any:
    return _ALL.where(_TABLE.job == job)


_ALL = select(checkpoints, jobs.c.best_step).join(jobs, jobs.c.number == _TABLE.job)
_OF_STEP = _ALL.where(_TABLE.job == bindparam("job"), _TABLE.step == bindparam("step"))
_POLICY = select(
    jobs.c.project, jobs.c.job_id, jobs.c.spec, jobs.c.keep_checkpoints, jobs.c.best_step
).where(jobs.c.number == bindparam("job"))  # fmt: skip
_STEPS = update(checkpoints).where(
    _TABLE.job == bindparam("of_job"), _TABLE.step.in_(bindparam("of_steps", expanding=True))
)
_TAKE_OUT = delete(checkpoints).where(_TABLE.job == bindparam("job"), _TABLE.step == bindparam("step"))
_GONE = delete(checkpoints).where(_TABLE.job == bindparam("job"), _TABLE.node == "", _TABLE.manifest.is_(None))
_PUT_IN = insert(checkpoints)


def _checkpoint(row: Row[Any]) -> Checkpoint:
    return Checkpoint(
        step=row.step,
        attempt=row.attempt,
        node=row.node,
        digest=row.digest,
        size_bytes=row.size_bytes,
        create_ms=row.create_ms,
        manifest=row.manifest,
        durable_ms=row.durable_ms,
        is_pinned=row.is_pinned,
        is_best=row.step == row.best_step,
    )
