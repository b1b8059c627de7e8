"""Logs that are thinned out, on disk. Each part is one transaction, and the job says up to where it was done.

Events keep their numbers, and the chunks that are left cover the same numbers without a hole. Before an event goes, the
chain of the run's record is computed over it; the head after the last one is kept, so that what follows can be checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, exists, func, insert, select, update

from services.scheduler.compaction.rules import CompactionPolicy, ended_before_ms, stays
from services.scheduler.jobs import TERMINAL
from services.scheduler.store import changes, clocks
from services.scheduler.store.tables import checkpoints, chunks, jobs
from services.scheduler.store.transaction import Transaction
from services.scheduler.wire import batch_bytes
from tuneforge.names import JobName
from tuneforge.records import event_bytes, first_head, mark_of, next_head
from tuneforge.v1 import events_pb2

CHUNKS_PER_PART = 20
"""At most 2000 events in one transaction: a few milliseconds."""
EVENTS_PER_CHUNK = 100
_ENDED = [str(state) for state in TERMINAL]


class RecordBroken(Exception):
    """An event is not the one that was recorded: what is left of it is evidence and stays."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one transaction did."""

    removed: int
    is_last: bool
    """Whether nothing is left to do for the job."""


def due(connection: Connection, now_ms: int, policy: CompactionPolicy, limit: int) -> list[int]:
    """Returns numbers of ended jobs whose logs are to be thinned out, those that ended first before the others."""
    before_ms = ended_before_ms(now_ms, policy.after_s, clocks.jumps(connection)) if policy.after_s > 0 else 0
    if policy.above_bytes > 0:
        total = connection.execute(select(func.coalesce(func.sum(jobs.c.log_bytes), 0))).scalar_one()
        before_ms = now_ms + 1 if total > policy.above_bytes else before_ms
    if before_ms <= 0:
        return []
    other = jobs.alias()
    name = "projects/" + jobs.c.project + "/jobs/" + jobs.c.job_id + "/checkpoints/%"
    is_needed = exists().where(other.c.state.not_in(_ENDED), other.c.origin_name.like(name))
    query = select(jobs.c.number).where(
        jobs.c.state.in_(_ENDED),
        jobs.c.removal.is_(None),
        jobs.c.end_ms < before_ms,
        jobs.c.compacted_seq < jobs.c.latest_seq - policy.newest,
        ~is_needed,
    )
    return list(connection.execute(query.order_by(jobs.c.end_ms).limit(limit)).scalars())


def thin_out_part(tx: Transaction, job: int, policy: CompactionPolicy) -> Part:
    """Thins out the next part of a log.

    Raises:
        RecordBroken: an event is not the one that was recorded; nothing was changed.
    """
    row = tx.connection.execute(select(jobs).where(jobs.c.number == job).with_for_update()).one()
    target = row.latest_seq - policy.newest
    if row.state not in _ENDED or row.compacted_seq >= target:
        return Part(0, is_last=True)
    found = tx.connection.execute(
        select(chunks.c.first_seq, chunks.c.last_seq, chunks.c.payload)
        .where(chunks.c.job == job, chunks.c.first_seq > row.compacted_seq, chunks.c.first_seq <= target)
        .order_by(chunks.c.first_seq)
        .limit(CHUNKS_PER_PART)
    ).all()
    if not found:
        raise RecordBroken(f"events after {row.compacted_seq} of {JobName(row.project, row.job_id)} are not there")
    durable = select(checkpoints.c.step).where(checkpoints.c.job == job, checkpoints.c.manifest.is_not(None))
    steps = frozenset(tx.connection.execute(durable).scalars())
    events, marks = _read(found)
    old = [(event, mark) for event, mark in zip(events, marks, strict=True) if event.job_seq <= target]
    kept = [(event, mark) for event, mark in old if stays(event, policy, steps)]
    newest = [(event, mark) for event, mark in zip(events, marks, strict=True) if event.job_seq > target]
    head = _head_after(row, old)
    through = old[-1][0].job_seq
    grown = _replace(
        tx, job, (found[0].first_seq, found[-1].last_seq), _chunks(kept, row.compacted_seq, through, newest)
    )
    tx.connection.execute(
        update(jobs)
        .where(jobs.c.number == job)
        .values(
            compacted_seq=through,
            removed_events=jobs.c.removed_events + len(old) - len(kept),
            compacted_head=head,
            compact_ms=tx.now_ms,
            log_bytes=jobs.c.log_bytes + grown - sum(len(each.payload) for each in found),
            **changes.stamp(tx),
        )
    )
    return Part(len(old) - len(kept), is_last=through >= target)


_Marked = tuple[events_pb2.Event, int]
_Chunk = tuple[int, int, Sequence[_Marked]]
"""First number, last number, events."""


def _read(found: Sequence[Any]) -> tuple[list[events_pb2.Event], list[int]]:
    events: list[events_pb2.Event] = []
    marks: list[int] = []
    for each in found:
        batch = events_pb2.EventBatch.FromString(each.payload)
        events += batch.events
        marks += batch.marks or [0] * len(batch.events)  # of a release without marks
    return events, marks


def _head_after(row: Any, old: Sequence[_Marked]) -> bytes:
    name = str(JobName(row.project, row.job_id))
    head = bytes(row.compacted_head) if row.compacted_head else first_head(name)
    for number, (event, mark) in enumerate(old, row.compacted_seq + 1):
        head = next_head(head, event_bytes(event))
        if event.job_seq != number or (mark and mark != mark_of(head)):
            raise RecordBroken(f"event {number} of {name} is not the one that was recorded")
    return head


def _chunks(kept: Sequence[_Marked], before: int, through: int, newest: Sequence[_Marked]) -> list[_Chunk]:
    """Returns the chunks that cover all numbers after `before`: those of what stays, then what was not looked at."""
    parts = [kept[start : start + EVENTS_PER_CHUNK] for start in range(0, len(kept), EVENTS_PER_CHUNK)] or [[]]
    made: list[_Chunk] = []
    for index, part in enumerate(parts):
        first = before + 1 if not made else made[-1][1] + 1
        last = through if index == len(parts) - 1 else part[-1][0].job_seq
        made.append((first, last, part))
    if newest:
        made.append((newest[0][0].job_seq, newest[-1][0].job_seq, newest))
    return made


def _replace(tx: Transaction, job: int, window: tuple[int, int], made: Sequence[_Chunk]) -> int:
    """Puts chunks in the place of others; returns their size."""
    first, last = window
    tx.connection.execute(delete(chunks).where(chunks.c.job == job, chunks.c.first_seq.between(first, last)))
    size = 0
    for begin, end, part in made:
        payload = batch_bytes([event_bytes(event) for event, _ in part], [mark for _, mark in part])
        size += len(payload)
        tx.connection.execute(insert(chunks).values(job=job, first_seq=begin, last_seq=end, payload=payload))
    return size
