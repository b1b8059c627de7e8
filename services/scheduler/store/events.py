"""The durable log of each job: chunks of events, numbered densely from 1 in the order of their commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from services.scheduler import wire
from services.scheduler.jobs import TERMINAL, JobState
from services.scheduler.store import changes
from services.scheduler.store.compacted import compaction_of
from services.scheduler.store.tables import chunks, jobs
from services.scheduler.store.transaction import Transaction
from services.scheduler.watching.records import Chunk, Compaction
from tuneforge.names import JobName
from tuneforge.records import first_head, mark_of, next_head

EVENTS_PER_CHUNK = 100
"""As many as a watcher gets in one message by default, so that a chunk is one message and is shared as it stands."""


class LogRemoved(Exception):
    """The job was removed, and its log with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """What a watcher read: chunks after its cursor, and how the job stood in the same snapshot."""

    chunks: tuple[Chunk, ...]
    latest_seq: int
    state: JobState
    compaction: Compaction = field(default_factory=Compaction)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEnd:
    """Where a job's log ends."""

    latest_seq: int
    head: bytes
    """Head of the record after its newest event."""


def append(tx: Transaction, job: int, encode: Callable[[int], Sequence[bytes]]) -> Chunk:
    """Adds events to a job's log and to the chain that is its record, and returns them as one chunk.

    Args:
        tx: The transaction of the change that the events tell of.
        job: Number of the job.
        encode: Gives the bytes of each event, 1 to `EVENTS_PER_CHUNK`, for the `job_seq` of the first one.
    """
    row = tx.connection.execute(_LOG_END, {"job": job}).one()
    name = str(JobName(row.project, row.job_id))
    chunk, values = extend(tx, job, log_end(name, row.latest_seq, row.record_head), encode)
    tx.connection.execute(_APPEND, {"of_job": job, **values})
    write(tx, chunk)
    return chunk


LOGGED: dict[str, Any] = {
    "log_bytes": jobs.c.log_bytes + bindparam("of_payload"),
    **changes.STAMP,
}
"""What else a statement sets that writes the values of `extend` to a job's row."""
_APPEND = update(jobs).where(jobs.c.number == bindparam("of_job")).values(**LOGGED)


def log_end(name: str, latest_seq: int, record_head: bytes | None) -> LogEnd:
    """Returns the end of the log of a job, from the columns of its row; a log without events begins with its name."""
    return LogEnd(latest_seq=latest_seq, head=record_head or first_head(name))


def extend(
    tx: Transaction, job: int, end: LogEnd, encode: Callable[[int], Sequence[bytes]]
) -> tuple[Chunk, dict[str, Any]]:
    """Returns events as the chunk that follows the end of a log, and what becomes of the job's row with it.

    The caller writes both in this transaction: the row together with what else it changes, by a statement that sets
    `LOGGED` too, then the chunk by `write`.
    """
    first = end.latest_seq + 1
    encoded = encode(first)
    heads = chain(end.head, encoded)
    latest, payload = end.latest_seq + len(encoded), wire.batch_bytes(encoded, map(mark_of, heads))
    chunk = Chunk(job=job, first_seq=first, last_seq=latest, payload=payload)
    values = {"latest_seq": latest, "record_head": heads[-1], "of_payload": len(payload), **changes.stamped(tx)}
    return chunk, values


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """The first events of a job that is about to be stored."""

    columns: Mapping[str, Any]
    """What its row holds of them."""
    last_seq: int
    payload: bytes

    def chunk_of(self, job: int) -> Chunk:
        """Returns them as a chunk, once the job has its number."""
        return Chunk(job=job, first_seq=1, last_seq=self.last_seq, payload=self.payload)


def begin(tx: Transaction, name: str, encode: Callable[[int], Sequence[bytes]]) -> Beginning:
    """Returns the beginning of a new job's log, so that its row is written once; see `extend`."""
    encoded = encode(1)
    heads = chain(first_head(name), encoded)
    payload, change = wire.batch_bytes(encoded, map(mark_of, heads)), changes.number(tx)
    columns = {
        "latest_seq": len(encoded),
        "record_head": heads[-1],
        "log_bytes": len(payload),
        "change_seq": change,
        "first_change": change,
    }
    return Beginning(columns=columns, last_seq=len(encoded), payload=payload)


def write(tx: Transaction, *made: Chunk) -> None:
    """Writes chunks that `extend` made, of different jobs."""
    rows = [
        {"job": chunk.job, "first_seq": chunk.first_seq, "last_seq": chunk.last_seq, "payload": chunk.payload}
        for chunk in made
    ]
    tx.connection.execute(_INSERT, rows if len(rows) > 1 else rows[0])
    tx.chunks.extend(made)


_INSERT = insert(chunks)
_LOG_END = (
    select(jobs.c.project, jobs.c.job_id, jobs.c.latest_seq, jobs.c.record_head)
    .where(jobs.c.number == bindparam("job"))
    .with_for_update()
)


def chain(head: bytes, encoded: Sequence[bytes]) -> list[bytes]:
    """Returns the head of the record after each of some events."""
    heads = []
    for event in encoded:
        head = next_head(head, event)
        heads.append(head)
    return heads


def append_warning(tx: Transaction, job: int, name: str, message: str) -> None:
    """Adds a line of the scheduler's own."""
    append(tx, job, lambda seq: wire.warning_event(name, message, seq, tx.now_ms))


def read_tail(connection: Connection, job: int, after_seq: int, limit: int) -> Tail:
    """Reads chunks that reach beyond `after_seq`, in order, at most `limit` of them; the first may begin before it."""
    columns = jobs.c.state, jobs.c.latest_seq, jobs.c.compacted_seq, jobs.c.removed_events, jobs.c.compacted_head
    is_there = (jobs.c.number == job, jobs.c.removal.is_(None))
    row = connection.execute(select(*columns, jobs.c.compact_ms).where(*is_there)).one_or_none()
    if row is None:
        raise LogRemoved
    # Only chunks that were thinned out hold more numbers than others; the condition on the first one spares a scan.
    earliest = 0 if after_seq < row.compacted_seq else after_seq - EVENTS_PER_CHUNK
    rows = connection.execute(
        select(chunks.c.first_seq, chunks.c.last_seq, chunks.c.payload)
        .where(chunks.c.job == job, chunks.c.first_seq > earliest, chunks.c.last_seq > after_seq)
        .order_by(chunks.c.first_seq)
        .limit(limit)
    )
    found = tuple(
        Chunk(job=job, first_seq=each.first_seq, last_seq=each.last_seq, payload=each.payload) for each in rows
    )
    return Tail(chunks=found, latest_seq=row.latest_seq, state=JobState(row.state), compaction=compaction_of(row))


def is_ended(tail: Tail, cursor: int) -> bool:
    """Returns whether a watcher at `cursor` has seen everything that will ever happen."""
    return tail.state in TERMINAL and cursor >= tail.latest_seq
