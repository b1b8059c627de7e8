"""The durable log of each job: chunks of events, numbered densely from 1 in the order of their commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from services.scheduler import wire
from services.scheduler.jobs import TERMINAL, JobState
from services.scheduler.records import Checkpoint, Chunk
from services.scheduler.store.tables import checkpoints, chunks, jobs
from services.scheduler.store.transaction import Transaction
from tuneforge.names import JobName
from tuneforge.records import first_head, mark_of, next_head

EVENTS_PER_CHUNK = 100
"""As many as a watcher gets in one message by default, so that a chunk is one message and is shared as it stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """What a watcher read: chunks after its cursor, and how the job stood in the same snapshot."""

    chunks: tuple[Chunk, ...]
    latest_seq: int
    state: JobState


def append(tx: Transaction, job: int, encode: Callable[[int], Sequence[bytes]]) -> Chunk:
    """Adds events to a job's log and to the chain that is its record, and returns them as one chunk.

    Args:
        tx: The transaction of the change that the events tell of.
        job: Number of the job.
        encode: Gives the bytes of each event, 1 to `EVENTS_PER_CHUNK`, for the `job_seq` of the first one.
    """
    columns = jobs.c.project, jobs.c.job_id, jobs.c.latest_seq, jobs.c.record_head
    row = tx.connection.execute(select(*columns).where(jobs.c.number == job).with_for_update()).one()
    encoded = encode(row.latest_seq + 1)
    heads = chain(row.record_head or first_head(str(JobName(row.project, row.job_id))), encoded)
    first, latest = row.latest_seq + 1, row.latest_seq + len(encoded)
    tx.connection.execute(update(jobs).where(jobs.c.number == job).values(latest_seq=latest, record_head=heads[-1]))
    chunk = Chunk(job=job, first_seq=first, last_seq=latest, payload=wire.batch_bytes(encoded, map(mark_of, heads)))
    tx.connection.execute(insert(chunks).values(job=job, first_seq=first, last_seq=latest, payload=chunk.payload))
    tx.chunks.append(chunk)
    return chunk


def chain(head: bytes, encoded: Sequence[bytes]) -> list[bytes]:
    """Returns the head of the record after each of some events."""
    heads = []
    for event in encoded:
        head = next_head(head, event)
        heads.append(head)
    return heads


def append_state(tx: Transaction, job: int, change: wire.Change) -> None:
    """Adds a change of the job's state, in the transaction that makes the change."""
    append(tx, job, lambda seq: wire.state_event(change, seq, tx.now_ms))


def append_warning(tx: Transaction, job: int, name: str, message: str) -> None:
    """Adds a line of the scheduler's own."""
    append(tx, job, lambda seq: wire.warning_event(name, message, seq, tx.now_ms))


def read_tail(connection: Connection, job: int, after_seq: int, limit: int) -> Tail:
    """Reads chunks that reach beyond `after_seq`, in order, at most `limit` of them; the first may begin before it."""
    state = connection.execute(select(jobs.c.state, jobs.c.latest_seq).where(jobs.c.number == job)).one()
    rows = connection.execute(
        select(chunks.c.first_seq, chunks.c.last_seq, chunks.c.payload)
        .where(chunks.c.job == job, chunks.c.first_seq > after_seq - EVENTS_PER_CHUNK, chunks.c.last_seq > after_seq)
        .order_by(chunks.c.first_seq)
        .limit(limit)
    )
    found = tuple(Chunk(job=job, first_seq=row.first_seq, last_seq=row.last_seq, payload=row.payload) for row in rows)
    return Tail(chunks=found, latest_seq=state.latest_seq, state=JobState(state.state))


def is_ended(tail: Tail, cursor: int) -> bool:
    """Returns whether a watcher at `cursor` has seen everything that will ever happen."""
    return tail.state in TERMINAL and cursor >= tail.latest_seq


def keep_checkpoints(tx: Transaction, job: int, saved: Sequence[Checkpoint], keep_last: int) -> None:
    """Adds checkpoints to a job's index and takes out those that the node has dropped for them."""
    for checkpoint in saved:
        tx.connection.execute(
            delete(checkpoints).where(checkpoints.c.job == job, checkpoints.c.step == checkpoint.step)
        )
        tx.connection.execute(
            insert(checkpoints).values(
                job=job,
                step=checkpoint.step,
                attempt=checkpoint.attempt,
                node=checkpoint.node,
                digest=checkpoint.digest,
                size_bytes=checkpoint.size_bytes,
                create_ms=checkpoint.create_ms,
            )
        )
    for node in {checkpoint.node for checkpoint in saved}:
        held = select(checkpoints.c.step).where(checkpoints.c.job == job, checkpoints.c.node == node)
        newest = held.order_by(checkpoints.c.step.desc()).limit(keep_last)
        tx.connection.execute(
            delete(checkpoints).where(
                checkpoints.c.job == job, checkpoints.c.node == node, checkpoints.c.step.not_in(newest)
            )
        )


def list_checkpoints(connection: Connection, job: int, before_step: int | None, limit: int) -> list[Checkpoint]:
    """Returns checkpoints of a job, newest first, those below `before_step` when it is given."""
    query = select(checkpoints).where(checkpoints.c.job == job).order_by(checkpoints.c.step.desc()).limit(limit)
    if before_step is not None:
        query = query.where(checkpoints.c.step < before_step)
    return [
        Checkpoint(
            step=row.step,
            attempt=row.attempt,
            node=row.node,
            digest=row.digest,
            size_bytes=row.size_bytes,
            create_ms=row.create_ms,
        )
        for row in connection.execute(query)
    ]


def newest_checkpoint_nodes(connection: Connection, numbers: Sequence[int]) -> dict[int, str]:
    """Returns for each job the node that has its newest checkpoint."""
    rows = connection.execute(
        select(checkpoints.c.job, checkpoints.c.node).where(checkpoints.c.job.in_(numbers)).order_by(checkpoints.c.step)
    )
    return {row.job: row.node for row in rows}
