"""States of an attempt and how attempts end: as dataclasses, as JSON on disk, and as the messages of the contract.

No grpc: worker and agent use it both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from tuneforge.errors import TABLE, Reason
from tuneforge.v1 import events_pb2, types_pb2


class AttemptState(StrEnum):
    """States of an attempt, named as in the contract."""

    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    INTERRUPTED = "INTERRUPTED"
    CANCELLED = "CANCELLED"
    LOST = "LOST"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailure:
    """Why an attempt ended badly."""

    reason: str
    """Word of the table of reasons, e.g. `WORKER_LOST`."""
    message: str
    """What is wrong, one sentence."""
    cure: str
    """What to do about it, one sentence."""
    is_user: bool
    """Whether the same input fails again; else a machine, a process or a network was at fault."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What varies in the message, by key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How an attempt ended; kept on disk, for a lost attempt cannot say it itself."""

    state: AttemptState
    """SUCCEEDED, FAILED, INTERRUPTED, CANCELLED or LOST."""
    time: float
    """When its process was seen to have ended, Unix time in seconds."""
    failure: AttemptFailure | None = None
    """Set with FAILED and LOST."""

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> End:
        """Reads what `to_json` gave."""
        failure = content["failure"]
        return cls(
            state=AttemptState(content["state"]),
            time=float(content["time"]),
            failure=AttemptFailure(**failure) if failure else None,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the worker says that it ended."""

    state: AttemptState
    """SUCCEEDED, FAILED, INTERRUPTED or CANCELLED."""
    failure: AttemptFailure | None
    """Set with FAILED."""


_RESULTS = {
    events_pb2.ATTEMPT_RESULT_SUCCEEDED: AttemptState.SUCCEEDED,
    events_pb2.ATTEMPT_RESULT_FAILED: AttemptState.FAILED,
    events_pb2.ATTEMPT_RESULT_INTERRUPTED: AttemptState.INTERRUPTED,
    events_pb2.ATTEMPT_RESULT_CANCELLED: AttemptState.CANCELLED,
}
_MESSAGE_CHARACTERS = 4096
_RESULT_NUMBERS = {state: number for number, state in _RESULTS.items()}


def failure(
    reason: Reason, message: str, *, is_user: bool = False, metadata: Mapping[str, str] | None = None
) -> AttemptFailure:
    """Makes a failure with the cure that the table of reasons has."""
    return AttemptFailure(
        reason=reason.value,
        message=message[:_MESSAGE_CHARACTERS],
        cure=TABLE[reason].cure,
        is_user=is_user,
        metadata=dict(metadata or {}),
    )


def failure_to_proto(failure: AttemptFailure) -> types_pb2.Failure:
    """Returns a failure as a message."""
    return types_pb2.Failure(
        reason=Reason(failure.reason).number,
        message=failure.message,
        cure=failure.cure,
        fault=types_pb2.FAULT_CLASS_USER if failure.is_user else types_pb2.FAULT_CLASS_INFRASTRUCTURE,
        metadata=failure.metadata,
    )


def read_outcome(message: events_pb2.AttemptOutcome) -> Outcome:
    """Returns what an outcome event says of the attempt's end."""
    found = message.failure if message.HasField("failure") else None
    return Outcome(
        state=_RESULTS.get(message.result, AttemptState.FAILED),
        failure=found
        and AttemptFailure(
            reason=Reason.from_number(found.reason).value,
            message=found.message,
            cure=found.cure,
            is_user=found.fault == types_pb2.FAULT_CLASS_USER,
            metadata=dict(found.metadata),
        ),
    )


def outcome_message(outcome: Outcome, *, step: int) -> events_pb2.AttemptOutcome:
    """Returns an end without an artifact as the payload of an event."""
    message = events_pb2.AttemptOutcome(result=_RESULT_NUMBERS[outcome.state], step=step)
    if outcome.failure is not None:
        message.failure.CopyFrom(failure_to_proto(outcome.failure))
    return message
