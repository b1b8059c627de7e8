"""Why something ended badly: dataclass <-> message."""

from __future__ import annotations

from services.scheduler.jobs import Failure
from tuneforge.errors import Reason
from tuneforge.v1 import types_pb2


def failure_to_proto(failure: Failure) -> types_pb2.Failure:
    """Converts a failure to its message."""
    fault = types_pb2.FAULT_CLASS_USER if failure.is_user_fault else types_pb2.FAULT_CLASS_INFRASTRUCTURE
    return types_pb2.Failure(
        reason=Reason(failure.reason).number,
        message=failure.message,
        cure=failure.cure,
        fault=fault,
        metadata=dict(failure.metadata),
    )


def failure_from_proto(message: types_pb2.Failure) -> Failure:
    """Converts a message to a failure; a reason that this release does not know becomes INTERNAL."""
    try:
        reason = Reason.from_number(message.reason)
    except ValueError:
        reason = Reason.INTERNAL
    return Failure(
        reason=str(reason),
        message=message.message,
        cure=message.cure,
        is_user_fault=message.fault == types_pb2.FAULT_CLASS_USER,
        metadata=tuple(sorted(message.metadata.items())),
    )


def failure_bytes(failure: Failure) -> bytes:
    """Returns a failure as it is stored."""
    return failure_to_proto(failure).SerializeToString()


def failure_from_bytes(stored: bytes) -> Failure:
    """Returns a failure that was stored."""
    return failure_from_proto(types_pb2.Failure.FromString(stored))
