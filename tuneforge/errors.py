"""Every error that a Tuneforge service gives, and how the SDK reads one back from what a call ended with.

The services raise by reason (`services/grpckit/errors.py`), the SDK reads the answer back with `from_rpc_error`; both
look the reason up in one table (`tuneforge.reason_table`), so that the two ends cannot drift. The exceptions are in
`tuneforge.exceptions`; all of it is imported from here.

This module imports no grpc at its top: rules and stores use it too.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tuneforge.exceptions import (
    AlreadyExists,
    Cancelled,
    Conflict,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    FieldViolation,
    GateFailed,
    InternalError,
    InvalidArgument,
    JobFailed,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    TuneforgeError,
    Unauthenticated,
    Unavailable,
)
from tuneforge.reason_table import TABLE, ReasonRow
from tuneforge.reasons import Reason

if TYPE_CHECKING:
    import grpc
    from google.rpc import status_pb2

__all__ = [
    "DOMAIN",
    "GATE_VIOLATION",
    "REQUEST_ID_KEY",
    "STATUS_DETAILS_KEY",
    "TABLE",
    "AlreadyExists",
    "Cancelled",
    "Conflict",
    "DataLoss",
    "DeadlineExceeded",
    "FailedPrecondition",
    "FieldViolation",
    "GateFailed",
    "InternalError",
    "InvalidArgument",
    "JobFailed",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "Reason",
    "ReasonRow",
    "ResourceExhausted",
    "TuneforgeError",
    "Unauthenticated",
    "Unavailable",
    "from_rpc_error",
    "from_status",
]

DOMAIN = "tuneforge.dev"
"""`google.rpc.ErrorInfo.domain` of every error of the suite."""

REQUEST_ID_KEY = "request_id"
"""Key of `ErrorInfo.metadata` with the request id under which every service logged the call."""

STATUS_DETAILS_KEY = "grpc-status-details-bin"
"""Trailing metadata in which gRPC carries a serialised `google.rpc.Status`."""

GATE_VIOLATION = "GATE"
"""`type` of a `PreconditionFailure` entry that stands for one gate; others repeat the error's message."""

# Answers that carry no ErrorInfo come from gRPC itself or from something between: code → (exception, reason, cure).
_BARE: Mapping[str, tuple[type[TuneforgeError], str, str]] = {
    "UNAVAILABLE": (Unavailable, Reason.PEER_UNAVAILABLE, TABLE[Reason.PEER_UNAVAILABLE].cure),
    "DEADLINE_EXCEEDED": (DeadlineExceeded, Reason.DEADLINE_EXCEEDED, TABLE[Reason.DEADLINE_EXCEEDED].cure),
    "CANCELLED": (Cancelled, "CANCELLED", ""),
    "RESOURCE_EXHAUSTED": (ResourceExhausted, "RESOURCE_EXHAUSTED", "Send or ask for less in one call."),
    "UNIMPLEMENTED": (
        FailedPrecondition,
        "UNIMPLEMENTED",
        "Check the address: the service there has no such method, or is of an older release.",
    ),
    "DATA_LOSS": (DataLoss, Reason.BLOB_DAMAGED, TABLE[Reason.BLOB_DAMAGED].cure),
    "UNAUTHENTICATED": (Unauthenticated, Reason.UNAUTHENTICATED, TABLE[Reason.UNAUTHENTICATED].cure),
    "PERMISSION_DENIED": (PermissionDenied, Reason.PERMISSION_DENIED, TABLE[Reason.PERMISSION_DENIED].cure),
}


def from_rpc_error(error: "grpc.RpcError") -> TuneforgeError:
    """Returns the typed exception for what a call ended with; for sync and aio errors alike.

    Args:
        error: What a stub raised.
    """
    code = error.code().name if hasattr(error, "code") else "UNKNOWN"
    text = (error.details() if hasattr(error, "details") else None) or f"the call ended with {code}"
    trailing: Any = error.trailing_metadata() if hasattr(error, "trailing_metadata") else None
    for key, value in trailing or ():
        if key == STATUS_DETAILS_KEY:
            from google.protobuf.message import DecodeError
            from google.rpc import status_pb2

            try:
                return from_status(status_pb2.Status.FromString(value), code)
            except DecodeError:
                break
    kind, reason, cure = _BARE.get(code, (InternalError, code, ""))
    return kind(reason, text, cure=cure)


def from_status(status: "status_pb2.Status", code: str = "UNKNOWN") -> TuneforgeError:
    """Returns the typed exception for a `google.rpc.Status`.

    Args:
        status: The status with its details.
        code: Name of the gRPC code, for a status without an ErrorInfo.
    """
    from google.rpc import error_details_pb2

    reason, metadata, fields, retry_after_s = "", dict[str, str](), list[FieldViolation](), None
    for detail in status.details:
        info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        precondition = error_details_pb2.PreconditionFailure()
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad):
            fields = [FieldViolation(each.field, each.description, each.reason) for each in bad.field_violations]
        elif detail.Unpack(precondition):
            fields += [
                FieldViolation(each.subject, each.description)
                for each in precondition.violations
                if each.type == GATE_VIOLATION
            ]
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
    row = TABLE.get(reason)
    kind, fallback_reason, cure = _BARE.get(code, (InternalError, code, ""))
    return (row.exception if row else kind)(
        reason or fallback_reason,
        status.message,
        cure=row.cure if row else cure,
        fields=fields,
        metadata=metadata,
        retry_after_s=retry_after_s,
        request_id=metadata.pop(REQUEST_ID_KEY, ""),
    )
