"""When and where a job may run, and before whom: as a frozen dataclass, with what is wrong with it, and its message."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType

from google.protobuf.timestamp_pb2 import Timestamp

from tuneforge.errors import FieldViolation
from tuneforge.names import InvalidName, NodeName
from tuneforge.v1 import scheduling_pb2 as pb

ENTRIES_MAX = 64
KINDS_MAX = 16
TEXT_MAX = 63
KIND_MAX = 128


class PriorityClass(StrEnum):
    """Classes of jobs: one of a higher class always goes before one of a lower class."""

    LOW = "low"
    """What is done when nothing else waits."""
    NORMAL = "normal"
    HIGH = "high"
    """What somebody waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduling:
    """When and where a job may run, and before whom. It changes nothing of what is trained."""

    priority: PriorityClass = PriorityClass.NORMAL
    is_preemptible: bool = True
    """Whether a running attempt may be asked to save its state and to give its devices to another job."""
    start_after: datetime | None = None
    """It does not start before; with a time zone. None: at once."""
    deadline: datetime | None = None
    """When it is wanted to have ended; with a time zone. The job is never ended for it, but said to be LATE."""
    depends_on: tuple[str, ...] = ()
    """Jobs of the same project that must have succeeded before it starts, at most 64; the SDK takes ids too."""
    exclude_nodes: tuple[str, ...] = ()
    """Nodes that must not run it: `nodes/{node}`, at most 64; the SDK takes ids too."""
    exclude_labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Labels that a node must not carry, at most 64. An empty value: the label with any value."""
    device_kinds: tuple[str, ...] = ()
    """Kinds of accelerators that it may run on, or parts of their names, at most 16. Empty: any."""


DEFAULT = Scheduling()

_CLASSES: dict[int, PriorityClass] = {
    pb.PRIORITY_CLASS_UNSPECIFIED: PriorityClass.NORMAL,
    pb.PRIORITY_CLASS_LOW: PriorityClass.LOW,
    pb.PRIORITY_CLASS_NORMAL: PriorityClass.NORMAL,
    pb.PRIORITY_CLASS_HIGH: PriorityClass.HIGH,
}
_NUMBERS = {name: pb.PriorityClass.ValueType(number) for number, name in _CLASSES.items()}


def scheduling_from_proto(message: pb.Scheduling) -> Scheduling:
    """Converts a message; a class that this release does not know becomes NORMAL, see `priority_of`."""
    return Scheduling(
        priority=_CLASSES.get(message.priority, PriorityClass.NORMAL),
        is_preemptible=message.preemptible if message.HasField("preemptible") else True,
        start_after=_moment(message.start_after) if message.HasField("start_after") else None,
        deadline=_moment(message.deadline) if message.HasField("deadline") else None,
        depends_on=tuple(message.depends_on),
        exclude_nodes=tuple(message.exclude_nodes),
        exclude_labels=MappingProxyType(dict(message.exclude_labels)),
        device_kinds=tuple(message.device_kinds),
    )


def priority_of(number: int) -> PriorityClass | None:
    """Returns a class by its number; None: this release does not know it."""
    return _CLASSES.get(number)


def priority_to_proto(value: PriorityClass) -> pb.PriorityClass.ValueType:
    """Converts a class to its number."""
    return _NUMBERS[value]


def scheduling_to_proto(value: Scheduling) -> pb.Scheduling:
    """Converts to the message, with its class and whether it may be stopped written out.

    Raises:
        ValueError: A moment has no time zone, or is none that a message can carry.
    """
    message = pb.Scheduling(
        priority=_NUMBERS[value.priority],
        preemptible=value.is_preemptible,
        depends_on=value.depends_on,
        exclude_nodes=value.exclude_nodes,
        exclude_labels=value.exclude_labels,
        device_kinds=value.device_kinds,
    )
    for name, moment in (("start_after", value.start_after), ("deadline", value.deadline)):
        if moment is None:
            continue
        if moment.tzinfo is None:
            raise ValueError(f"`{name}` has no time zone; use e.g. datetime.now(UTC)")
        stamp = Timestamp()
        stamp.FromDatetime(moment.astimezone(UTC))
        getattr(message, name).CopyFrom(stamp)
    return message


def _moment(stamp: Timestamp) -> datetime:
    try:
        return stamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        return _NEVER


_NEVER = datetime.max.replace(tzinfo=UTC)


def scheduling_violations(value: Scheduling, now: datetime | None = None) -> Iterator[FieldViolation]:
    """Yields everything that is wrong.

    Args:
        value: What is asked for.
        now: This moment, which a deadline must lie after; None: it is not looked at.
    """
    yield from _moment_violations(value.start_after, value.deadline, now)
    yield from _too_many("depends_on", len(value.depends_on), ENTRIES_MAX)
    yield from _too_many("exclude_nodes", len(value.exclude_nodes), ENTRIES_MAX)
    for index, name in enumerate(value.exclude_nodes[: ENTRIES_MAX + 1]):
        try:
            NodeName.parse(name)
        except InvalidName as error:
            yield FieldViolation(f"exclude_nodes[{index}]", f"is not a node: {error}")
    yield from _too_many("exclude_labels", len(value.exclude_labels), ENTRIES_MAX)
    for key, word in sorted(value.exclude_labels.items())[: ENTRIES_MAX + 1]:
        if not 1 <= len(key) <= TEXT_MAX or len(word) > TEXT_MAX or not (key + word).isprintable():
            problem = f"is no label: use printable text, 1 to {TEXT_MAX} characters, the value at most {TEXT_MAX}"
            yield FieldViolation(f"exclude_labels[{key[:TEXT_MAX]!r}]", problem)
    yield from _too_many("device_kinds", len(value.device_kinds), KINDS_MAX)
    for index, kind in enumerate(value.device_kinds[: KINDS_MAX + 1]):
        if not 1 <= len(kind.strip()) <= KIND_MAX or not kind.isprintable():
            problem = f"is {kind[:KIND_MAX]!r}: use printable text of 1 to {KIND_MAX} characters, e.g. `h200`"
            yield FieldViolation(f"device_kinds[{index}]", problem)


def _moment_violations(
    start: datetime | None, deadline: datetime | None, now: datetime | None
) -> Iterator[FieldViolation]:
    for name, moment in (("start_after", start), ("deadline", deadline)):
        if moment == _NEVER:
            yield FieldViolation(name, "is no moment: use one of the years 1 to 9999")
    if deadline is not None and start is not None and deadline <= start:
        yield FieldViolation("deadline", f"is {deadline.isoformat()}: use a moment after `start_after`")
    elif deadline is not None and now is not None and deadline <= now:
        yield FieldViolation("deadline", f"is {deadline.isoformat()}, which is over: use a later moment")


def _too_many(name: str, count: int, most: int) -> Iterator[FieldViolation]:
    if count > most:
        yield FieldViolation(name, f"has {count} entries: use at most {most}")
