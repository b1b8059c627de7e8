"""The durable log of each job: chunks of events, numbered densely from 1 in the order of their commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from services.scheduler import wire
from services.scheduler.jobs import TERMINAL, JobState
from services.scheduler.records import Chunk
from services.scheduler.store import changes
from services.scheduler.store.tables import chunks, jobs
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
    chunk = Chunk(job=job, first_seq=first, last_seq=latest, payload=wire.batch_bytes(encoded, map(mark_of, heads)))
    log_bytes = jobs.c.log_bytes + len(chunk.payload)
    tx.connection.execute(
        update(jobs)
        .where(jobs.c.number == job)
        .values(latest_seq=latest, record_head=heads[-1], log_bytes=log_bytes, **changes.stamp(tx))
    )
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
