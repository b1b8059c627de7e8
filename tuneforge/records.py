"""The record of a run: a hash chain over the events of a job, whose head stands in the version that the job made.

    head 0 = SHA-256 of `tuneforge-run-record-v1`, a line break, and the name of the job
    head n = SHA-256 of head n-1 and the bytes of event n

The bytes of an event are its protobuf form with fields in the order of their numbers and map entries in the order of
their keys, which every official protobuf library writes when asked to be deterministic. Whoever has the events, such as
from `WatchJob`, can compute the head again: one changed, missing or added event gives another one.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneforge.values import RunRecord

if TYPE_CHECKING:
    from tuneforge.client import Client
    from tuneforge.v1 import events_pb2

_DOMAIN = b"tuneforge-run-record-v1\n"
_MARK_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordCheck:
    """What became of computing a record again."""

    job: str
    version: str
    recorded: RunRecord
    """What the version says."""
    head: str
    """What the events of today give."""
    is_intact: bool
    """Whether the events are those that were recorded."""
    first_difference: int | None
    """`job_seq` of the first event that differs; None: none does, or it cannot be told which one."""
    problem: str
    """What is wrong, as a sentence; empty when nothing is."""
    compacted_through: int = 0
    """Events up to this one were thinned out by the operator's policy: those after it were checked. 0: all were."""


def first_head(job: str) -> bytes:
    """Returns the head before the first event of a job, given by whole name."""
    return hashlib.sha256(_DOMAIN + job.encode()).digest()


def next_head(head: bytes, event: bytes) -> bytes:
    """Returns the head after an event, given by its bytes."""
    return hashlib.sha256(head + event).digest()


def event_bytes(event: "events_pb2.Event") -> bytes:
    """Returns the bytes of an event that the chain is over."""
    return event.SerializeToString(deterministic=True)


def mark_of(head: bytes) -> int:
    """Returns the beginning of a head, as an `EventBatch` carries it for each event."""
    return int.from_bytes(head[:_MARK_BYTES], "big")


class Chain:
    """Computes a record again, batch by batch."""

    def __init__(self, job: str) -> None:
        self.head = first_head(job)
        self.num_events = 0
        self.skips_through = 0
        """What is left of the events up to this one is not looked at."""
        self.first_difference: int | None = None
        """`job_seq` of the first event that is out of order or does not give the mark that it came with."""

    def begin_after(self, job_seq: int, head: bytes) -> None:
        """Goes on after an event by the head that is said to stand there: a wrong one cannot give the recorded end."""
        self.num_events, self.head, self.skips_through = job_seq, head, job_seq

    def add(self, events: Sequence["events_pb2.Event"], marks: Sequence[int], *, limit: int) -> None:
        """Adds events, at most until there are `limit` in all; marks count where there is one for each event."""
        has_marks = len(marks) == len(events)
        for index, event in enumerate(events):
            if self.num_events >= limit:
                return
            if event.job_seq <= self.skips_through:
                continue
            self.num_events += 1
            self.head = next_head(self.head, event_bytes(event))
            differs = event.job_seq != self.num_events or (has_marks and marks[index] != mark_of(self.head))
            if differs and self.first_difference is None:
                self.first_difference = self.num_events


def check_record(
    job: str,
    version: str,
    recorded: RunRecord,
    batches: Iterable[tuple[Sequence["events_pb2.Event"], Sequence[int]]],
    compacted: Callable[[], tuple[int, bytes] | None] = lambda: None,
) -> RecordCheck:
    """Computes a record again and compares it.

    Args:
        job: Name of the job.
        version: Name of the version that it made.
        recorded: What the version says.
        batches: Events of the job from the first one on, with the marks that they came with.
        compacted: Asked once the first batch is there: up to which event the log was thinned out and the head after it.
    """
    chain = Chain(job)
    for number, (events, marks) in enumerate(batches):
        if number == 0 and (gone := compacted()) is not None:
            chain.begin_after(*gone)
        chain.add(events, marks, limit=recorded.num_events)
        if chain.num_events >= recorded.num_events:
            break
    is_intact = chain.num_events == recorded.num_events and chain.head.hex() == recorded.head
    return RecordCheck(
        job=job,
        version=version,
        recorded=recorded,
        head=chain.head.hex(),
        is_intact=is_intact,
        first_difference=None if is_intact else _first(chain, recorded),
        problem="" if is_intact else _problem(chain, recorded),
        compacted_through=chain.skips_through,
    )


def verify_record(client: "Client", job: str) -> RecordCheck:
    """Reads all events of a finished job and says whether they are those that its version recorded.

    Args:
        client: Of the suite.
        job: Id or name of the job.

    Raises:
        FailedPrecondition: The job has made no version, or one without a record.
        TuneforgeError: The job does not exist, or a service stays away.
    """
    from tuneforge.errors import FailedPrecondition, Reason

    found = client.jobs.read(job)
    if found.version is None:
        raise FailedPrecondition(Reason.WRONG_STATE, f"{found.name} has made no version, so there is no record of it")
    recorded = client.models.version(found.version.version).lineage.run_record
    if recorded is None:
        message = f"{found.version.version} has no record: it was made by a release without"
        raise FailedPrecondition(Reason.WRONG_STATE, message)
    gone: list[tuple[int, bytes]] = []
    batches = client.jobs.raw_batches(found.name, lambda through, head: gone.append((through, head)))
    return check_record(found.name, found.version.version, recorded, batches, lambda: gone[-1] if gone else None)


def _first(chain: Chain, recorded: RunRecord) -> int | None:
    if chain.first_difference is None and chain.num_events < recorded.num_events:
        return chain.num_events + 1
    return chain.first_difference


def _problem(chain: Chain, recorded: RunRecord) -> str:
    if chain.skips_through >= recorded.num_events:
        return (
            f"events up to {chain.skips_through} were thinned out, all {recorded.num_events} that were recorded among "
            "them: nothing is left to be checked"
        )
    first = _first(chain, recorded)
    if chain.first_difference is None and chain.num_events < recorded.num_events:
        return f"the log ends after event {chain.num_events}; {recorded.num_events} were recorded"
    if first is None:
        return "the events fit together, but they are not those that were recorded: the whole log was written anew"
    return f"event {first} is not the one that was recorded"
