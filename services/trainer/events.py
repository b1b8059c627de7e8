"""Events: what a worker writes into its spool and what the agent reads out of it. The hot path between two processes.

Messages are used as they are here (no dataclass twin), since they go to the spool as bytes and on to the wire as
messages. No grpc: the fork server imports this.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import Message

from services.trainer.spool import LIMIT_BYTES, SpoolWriter
from tuneforge.names import AttemptName
from tuneforge.v1 import events_pb2

_KIND_OF = {
    field.message_type.full_name: field.name
    for field in events_pb2.Event.DESCRIPTOR.oneofs_by_name["payload"].fields
    if field.message_type is not None
}
# After these the run's history must survive a power cut at once: others act on them.
_SYNCED = frozenset({"checkpoint", "checkpoint_durable", "outcome"})
_TEXT_CHARACTERS = 64 * 1024
"""Longest text of a log line or a sample; at 4 bytes a character two of them fit in a record."""


class EventLog:
    """The sink that an attempt's events go to: numbers them, stamps them, and writes them to the spool at once.

    Safe to use from several threads.
    """

    def __init__(self, folder: Path, name: AttemptName, node_rank: int, *, limit_bytes: int = LIMIT_BYTES) -> None:
        """Opens the spool in `folder`, going on after its last event; there must be no other writer."""
        self._job = str(name.parent)
        self._attempt = name.attempt
        self._node_rank = node_rank
        self._spool = SpoolWriter(folder, make_gap=self._gap, limit_bytes=limit_bytes)

    def emit(self, payload: Message) -> None:
        """Writes one event.

        Args:
            payload: Any message of `Event.payload`. Device metrics, samples and log lines are dropped, and a Gap event
                counts them, while the spool is full.

        Raises:
            OSError: The disk is full; nothing was written.
            ValueError: The message is larger than 1 MiB, or no payload of an event.
        """
        kind = _KIND_OF.get(payload.DESCRIPTOR.full_name)
        if kind is None:
            raise ValueError(f"{payload.DESCRIPTOR.full_name} is no payload of an event")
        _cut_texts(payload)
        self._spool.append(kind, lambda seq: self._event(seq, kind, payload))
        if kind in _SYNCED:
            self._spool.sync()

    def log(self, message: str, severity: events_pb2.LogSeverity.ValueType = events_pb2.LOG_SEVERITY_INFO) -> None:
        """Writes a line for people."""
        self.emit(events_pb2.LogLine(severity=severity, message=message))

    def change_state(self, before: str, after: str, reason: str, message: str) -> None:
        """Writes a change of the attempt's state; states without prefix, e.g. `RUNNING`."""
        change = events_pb2.StateChange(to=after, reason=reason, message=message)
        setattr(change, "from", before)
        self.emit(change)

    def sync(self) -> None:
        """Makes everything written so far survive a power cut."""
        self._spool.sync()

    def close(self) -> None:
        """Syncs and closes the spool."""
        self._spool.close()

    def _event(self, seq: int, kind: str, payload: Message) -> bytes:
        event = events_pb2.Event(job=self._job, attempt=self._attempt, node_rank=self._node_rank, seq=seq)
        event.time.FromNanoseconds(time.time_ns())
        getattr(event, kind).CopyFrom(payload)
        return event.SerializeToString()

    def _gap(self, seq: int, dropped: int, kind: str) -> bytes:
        return self._event(seq, "gap", events_pb2.Gap(dropped=dropped, kind=kind))


@dataclass(frozen=True, slots=True)
class Glance:
    """What the agent needs to know of an event."""

    kind: str
    """Field name in `Event.payload`."""
    step: int | None = None
    """Last finished optimiser step, when the event tells."""
    state: str = ""
    """New state of the attempt, without prefix, when the event tells."""
    outcome: events_pb2.AttemptOutcome | None = None
    """The attempt's end, when the event is it."""
    memory_peak_bytes: int = 0
    """Largest resident memory of the worker so far, when the event tells."""


def parse(payload: bytes) -> events_pb2.Event:
    """Reads an event back."""
    return events_pb2.Event.FromString(payload)


def glance(payload: bytes) -> Glance:
    """Reads what the agent needs to know of an event."""
    event = parse(payload)
    kind = event.WhichOneof("payload") or ""
    if kind == "step":
        return Glance(kind, step=event.step.step)
    if kind == "resumed_from":
        return Glance(kind, step=event.resumed_from.step)
    if kind == "state":
        return Glance(kind, state=event.state.to)
    if kind == "device":
        return Glance(kind, memory_peak_bytes=event.device.memory_peak_bytes)
    if kind == "outcome":
        return Glance(kind, step=event.outcome.step, outcome=event.outcome)
    return Glance(kind)


def _cut_texts(payload: Message) -> None:
    """Shortens what people may have made too long to be carried."""
    if isinstance(payload, events_pb2.LogLine):
        payload.message = payload.message[:_TEXT_CHARACTERS]
    elif isinstance(payload, events_pb2.Sample):
        payload.prompt = payload.prompt[:_TEXT_CHARACTERS]
        payload.completion = payload.completion[:_TEXT_CHARACTERS]
