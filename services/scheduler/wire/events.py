"""Events on their way from a node into a job's log and out to watchers.

Events stay messages: they are numbered, serialised once when they are committed, and shared as they stand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from services.scheduler.records import Checkpoint
from services.scheduler.wire.times import milliseconds, timestamp
from tuneforge.records import event_bytes
from tuneforge.v1 import events_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of a job's state, as its log tells it."""

    job: str
    source: str
    target: str
    reason: str
    message: str


def batch_bytes(encoded: Iterable[bytes], marks: Iterable[int]) -> bytes:
    """Returns the serialised `EventBatch` of events that are serialised already."""
    parts = [events_pb2.EventBatch(marks=marks).SerializeToString()]
    for event in encoded:
        parts += [_EVENT_TAG, _varint(len(event)), event]
    return b"".join(parts)


_EVENT_TAG = b"\x0a"  # field 1 of `EventBatch`, with a length


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


def state_event(change: Change, job_seq: int, now_ms: int) -> list[bytes]:
    """Returns the bytes of one change of state, made by the scheduler itself (attempt 0)."""
    event = events_pb2.Event(
        job=change.job,
        job_seq=job_seq,
        time=timestamp(now_ms),
        state=events_pb2.StateChange(to=change.target, reason=change.reason, message=change.message),
    )
    setattr(event.state, "from", change.source)  # a keyword of Python
    return [event_bytes(event)]


def warning_event(job: str, message: str, job_seq: int, now_ms: int) -> list[bytes]:
    """Returns the bytes of one warning of the scheduler itself."""
    line = events_pb2.LogLine(severity=events_pb2.LOG_SEVERITY_WARNING, message=message)
    event = events_pb2.Event(job=job, job_seq=job_seq, time=timestamp(now_ms), log=line)
    return [event_bytes(event)]


def stall_event(job: str, stall: bytes, job_seq: int, now_ms: int, *, is_over: bool) -> list[bytes]:
    """Returns the bytes of the news that an attempt stands still, or goes on after that.

    Args:
        job: Name of the job.
        stall: Serialised `Stall` as its node told it.
        job_seq: Number of the event.
        now_ms: Time of the event.
        is_over: It goes on.
    """
    found = events_pb2.Stall.FromString(stall)
    if is_over:
        found.message, found.is_over = "it goes on", True
        found.ClearField("stacks")
    event = events_pb2.Event(job=job, job_seq=job_seq, time=timestamp(now_ms), stall=found)
    return [event_bytes(event)]


def stall_of_part(stall: bytes, node_rank: int, node: str) -> bytes:
    """Returns a serialised `Stall` with the part of the attempt that it is of: its rank, and the id of its node."""
    found = events_pb2.Stall.FromString(stall)
    found.node_rank, found.node = node_rank, f"nodes/{node}"
    return found.SerializeToString()


def has_stacks(stall: bytes) -> bool:
    """Tells whether a serialised `Stall` says what the threads were doing."""
    return bool(events_pb2.Stall.FromString(stall).stacks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """A checkpoint that was copied to the blob store."""

    step: int
    manifest: bytes
    """Serialised `Manifest`."""
    digest: str
    size_bytes: int
    time_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a batch says that a resource shows."""

    step: int | None = None
    total_steps: int = 0
    resumed_step: int | None = None
    resolved: bytes | None = None
    """Serialised `Resolved`."""
    outcome: bytes | None = None
    """Serialised `AttemptOutcome`."""
    best_step: int | None = None
    joules: float | None = None
    """Energy of the attempt so far by its node's counters; None: they do not tell."""
    checkpoints: tuple[Callable[[str, int], Checkpoint], ...] = ()
    """For each saved checkpoint: node and attempt -> its record."""
    durable: tuple[Copied, ...] = ()
    """Checkpoints that were copied to the blob store."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Events of one attempt in the order of their `seq`, as they came."""

    events: tuple[events_pb2.Event, ...]

    @property
    def first_seq(self) -> int:
        """Number of the first event; 0 for an empty batch."""
        return self.events[0].seq if self.events else 0

    @property
    def last_seq(self) -> int:
        """Number of the last event; 0 for an empty batch."""
        return self.events[-1].seq if self.events else 0

    def after(self, seq: int) -> Batch:
        """Returns the events beyond a number."""
        if self.first_seq > seq:
            return self
        return Batch(tuple(event for event in self.events if event.seq > seq))

    def split(self, size: int) -> Iterator[Batch]:
        """Yields the events in parts of at most `size`."""
        for start in range(0, len(self.events), size):
            yield Batch(self.events[start : start + size])

    def encode(self, first_job_seq: int) -> list[bytes]:
        """Returns the bytes of the events, numbered from `first_job_seq` on."""
        batch = events_pb2.EventBatch(events=self.events)
        for offset, event in enumerate(batch.events):
            event.job_seq = first_job_seq + offset
        return [event_bytes(event) for event in batch.events]

    def facts(self) -> Facts:
        """Returns what the events say that a resource shows; the newest word of each kind."""
        step: int | None = None
        total, resumed = 0, None
        resolved = outcome = None
        best: int | None = None
        energy: float | None = None
        saved: list[Callable[[str, int], Checkpoint]] = []
        durable: list[Copied] = []
        for event in self.events:
            match event.WhichOneof("payload"):
                case "step":
                    step, total = event.step.step, event.step.total_steps
                case "resumed_from":
                    resumed = event.resumed_from.step
                case "checkpoint":
                    saved.append(_checkpoint(event))
                case "checkpoint_durable":
                    durable.append(_copied(event))
                case "evaluation" if event.evaluation.is_best:
                    best = event.evaluation.step
                case "device" if (found := _joules(event.device)) > 0:
                    energy = found
                case "resolved":
                    resolved = event.resolved.SerializeToString()
                case "outcome":
                    outcome = event.outcome.SerializeToString()
        return Facts(
            step=step,
            total_steps=total,
            resumed_step=resumed,
            resolved=resolved,
            outcome=outcome,
            best_step=best,
            joules=energy,
            checkpoints=tuple(saved),
            durable=tuple(durable),
        )


def _joules(sample: events_pb2.DeviceMetrics) -> float:
    """Returns what an attempt has taken so far; a slice of a device has no counter of its own."""
    return sample.energy_joules + sum(each.energy_joules for each in sample.devices if not each.is_slice)


def _copied(event: events_pb2.Event) -> Copied:
    copied = event.checkpoint_durable
    return Copied(
        step=copied.step,
        manifest=copied.manifest.SerializeToString(),
        digest=copied.manifest.digest,
        size_bytes=sum(file.size_bytes for file in copied.manifest.files),
        time_ms=milliseconds(event.time),
    )


def _checkpoint(event: events_pb2.Event) -> Callable[[str, int], Checkpoint]:
    saved, create_ms = event.checkpoint, milliseconds(event.time)

    def at(node: str, attempt: int) -> Checkpoint:
        return Checkpoint(
            step=saved.step,
            attempt=attempt,
            node=node,
            digest=saved.digest,
            size_bytes=saved.size_bytes,
            create_ms=create_ms,
        )

    return at
