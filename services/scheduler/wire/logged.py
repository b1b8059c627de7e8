"""A job's log as it lies on disk, for who checks it: chunks -> events with what they say of job and attempt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from tuneforge.records import event_bytes
from tuneforge.v1 import events_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """One event of a job's log."""

    job_seq: int
    attempt: int
    """0: the scheduler's own."""
    node_rank: int
    seq: int
    """Number among the events of its part of the attempt; 0 for the scheduler's own."""
    source: str
    """State that the job left; of a change of state."""
    target: str
    """State that the job came to; empty: the event is no change of state."""
    encoded: bytes
    """The bytes that the record's chain is over."""


def logged(payload: bytes) -> Iterator[Logged]:
    """Yields the events of one chunk.

    Raises:
        ValueError: the bytes are no `EventBatch`.
    """
    try:
        batch = events_pb2.EventBatch.FromString(payload)
    except DecodeError as error:
        raise ValueError(f"its bytes are no batch of events: {error}") from error
    for event in batch.events:
        is_change = event.WhichOneof("payload") == "state" and not event.attempt
        yield Logged(
            job_seq=event.job_seq,
            attempt=event.attempt,
            node_rank=event.node_rank,
            seq=event.seq,
            source=getattr(event.state, "from") if is_change else "",
            target=event.state.to if is_change else "",
            encoded=event_bytes(event),
        )
