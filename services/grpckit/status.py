"""Exceptions to `google.rpc.Status`: what a caller is told, and what only the log is told.

Everything sent here travels in HTTP/2 trailers, for which gRPC clients take about 8 KB in all; a longer answer would
reach them as "received trailing metadata size exceeds". So long texts and long lists are cut, and `fields_omitted` says
so.
"""

import errno
from collections.abc import Mapping

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from services.grpckit.errors import FieldViolation, Reason, ServiceError, invalid_fields
from tuneforge.errors import (
    DOMAIN,
    GATE_VIOLATION,
    REQUEST_ID_KEY,
    STATUS_DETAILS_KEY,
    DeadlineExceeded,
    TuneforgeError,
    Unavailable,
    from_rpc_error,
)
from tuneforge.manifest import InvalidManifest
from tuneforge.names import InvalidName

_MAX_STATUS_BYTES = 4096
_MAX_MESSAGE_BYTES = 500  # percent-encoded it may be three times as long, and it is sent twice
_MAX_METADATA_BYTES = 1500
_MAX_VALUE_BYTES = 1024
_MAX_TEXT_BYTES = 300
_MAX_GATES_BYTES = 1500
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}

CODES: Mapping[str, grpc.StatusCode] = {code.name: code for code in grpc.StatusCode}
"""Name of a gRPC code → the code."""


class UnreadableRequest(Exception):
    """The bytes of a request do not parse."""


def from_peer(error: grpc.RpcError, *, peer: str = "another service") -> ServiceError:
    """Returns what to answer when a call to another service failed.

    A reason that the peer gave is passed on with its fields and metadata. What no service said (nobody answers, a
    broken connection), and a refusal of our own token, is PEER_UNAVAILABLE: the caller can only wait.
    """
    return _passed_on(from_rpc_error(error), peer)


def _passed_on(typed: TuneforgeError, peer: str) -> ServiceError:
    is_said = typed.request_id and typed.reason in Reason.__members__  # only a service tells a request id
    if not is_said or typed.reason == Reason.UNAUTHENTICATED:
        return ServiceError(
            Reason.PEER_UNAVAILABLE, f"{peer} did not answer: {typed.message}", metadata={"cause": typed.reason}
        )
    return ServiceError(
        typed.reason,
        typed.message,
        fields=typed.fields,
        metadata=typed.metadata,
        retry_after_s=typed.retry_after_s,
    )


def expected(error: BaseException) -> ServiceError | None:
    """Returns the answer for an exception that a caller, a peer or a full disk can cause; None for a fault of ours."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, InvalidName):
        metadata = {"value": error.value, "expected": error.expected}
        return ServiceError(Reason.INVALID_NAME, str(error), metadata=metadata)
    if isinstance(error, InvalidManifest):
        return invalid_fields([FieldViolation("manifest", str(error))])
    if isinstance(error, grpc.RpcError):
        return from_peer(error)
    if isinstance(error, TuneforgeError) and (error.request_id or isinstance(error, Unavailable | DeadlineExceeded)):
        # Of the SDK, with which services move blobs; what it raises without having asked anybody is a fault of ours.
        return _passed_on(error, "another service")
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return ServiceError(Reason.DISK_FULL, "the service's disk is full; nothing was written")
    if isinstance(error, UnreadableRequest):
        return ServiceError(Reason.INVALID_FIELD, "the bytes of the request are not a message of the method's type")
    return None


def internal(incident: str) -> ServiceError:
    """Returns the answer for a fault of ours: the id under which it was logged, and nothing else."""
    return ServiceError(
        Reason.INTERNAL, f"the service failed; its log has it as incident {incident}", metadata={"incident": incident}
    )


class RichStatus(grpc.Status):
    """What `context.abort_with_status` takes."""

    def __init__(self, error: ServiceError, request_id: str) -> None:
        status = to_proto(error, request_id)
        self.code = CODES[error.code]
        self.details = status.message
        self.trailing_metadata = (
            (STATUS_DETAILS_KEY, status.SerializeToString()),
            ("x-request-id", request_id),
        )


def to_proto(error: ServiceError, request_id: str) -> status_pb2.Status:
    """Returns the status with its details: ErrorInfo always, the others as the code asks.

    Args:
        error: What to answer.
        request_id: Id of the call, told in the ErrorInfo's metadata.
    """
    message = _cut(error.message, _MAX_MESSAGE_BYTES)
    metadata = _metadata(error, request_id)
    status = status_pb2.Status(code=CODES[error.code].value[0], message=message)
    details: list[Message] = []
    if error.code in {"UNAVAILABLE", "RESOURCE_EXHAUSTED"}:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(1000 * (error.retry_after_s or 1.0)))
        details.append(retry)
    if error.reason is Reason.QUOTA_EXCEEDED:
        details.append(error_details_pb2.QuotaFailure(violations=[_quota(error)]))
    fields_of_request = error.fields
    if error.reason is Reason.GATE_FAILED:
        fields_of_request = ()
        details.append(error_details_pb2.PreconditionFailure(violations=_gates(error, metadata)))
    elif error.code == "FAILED_PRECONDITION":
        details.append(error_details_pb2.PreconditionFailure(violations=[_precondition(error)]))
    # For people at grpcurl; the SDK has the same sentence in its table.
    details.append(error_details_pb2.LocalizedMessage(locale="en", message=error.cure))
    left = _MAX_STATUS_BYTES - status.ByteSize() - sum(detail.ByteSize() + 64 for detail in details)
    left -= sum(len(key.encode()) + len(value.encode()) + 8 for key, value in metadata.items()) + 128
    fields = _fitting(fields_of_request, left)
    if len(fields) < len(fields_of_request):
        metadata["fields_omitted"] = str(len(fields_of_request) - len(fields))
    if fields:
        details.insert(0, error_details_pb2.BadRequest(field_violations=fields))
    details.insert(0, error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _quota(error: ServiceError) -> error_details_pb2.QuotaFailure.Violation:
    subject = f"{error.metadata.get('name', '')}: {error.metadata.get('quota', '')}"
    return error_details_pb2.QuotaFailure.Violation(
        subject=subject, description=_cut(error.message, _MAX_MESSAGE_BYTES)
    )


def _metadata(error: ServiceError, request_id: str) -> dict[str, str]:
    """Returns the request id and as much of the error's metadata as has room."""
    metadata = {REQUEST_ID_KEY: request_id}
    left = _MAX_METADATA_BYTES
    for key, value in error.metadata.items():
        text = _cut(value, _MAX_VALUE_BYTES)
        left -= len(key.encode()) + len(text.encode())
        if left >= 0:
            metadata[key] = text
    return metadata


def _precondition(error: ServiceError) -> error_details_pb2.PreconditionFailure.Violation:
    return error_details_pb2.PreconditionFailure.Violation(
        type=error.reason,
        subject=_cut(error.metadata.get("name", ""), _MAX_TEXT_BYTES),
        description=_cut(error.message, _MAX_TEXT_BYTES),
    )


def _gates(error: ServiceError, metadata: dict[str, str]) -> list[error_details_pb2.PreconditionFailure.Violation]:
    """Returns an entry for each gate that refuses, as many as have room; `fields_omitted` counts the others."""
    fitting = _fitting(error.fields, _MAX_GATES_BYTES)
    if len(fitting) < len(error.fields):
        metadata["fields_omitted"] = str(len(error.fields) - len(fitting))
    return [
        error_details_pb2.PreconditionFailure.Violation(
            type=GATE_VIOLATION, subject=entry.field, description=entry.description
        )
        for entry in fitting
    ]


def _fitting(
    violations: tuple[FieldViolation, ...], budget_bytes: int
) -> list[error_details_pb2.BadRequest.FieldViolation]:
    """Returns as many violations, from the first one on, as the budget holds."""
    fitting = []
    for violation in violations:
        entry = error_details_pb2.BadRequest.FieldViolation(
            field=_cut(violation.field, _MAX_TEXT_BYTES),
            description=_cut(violation.description, 2 * _MAX_TEXT_BYTES),
            reason=violation.reason,
        )
        budget_bytes -= entry.ByteSize() + 4
        if budget_bytes < 0:
            break
        fitting.append(entry)
    return fitting


def _cut(text: str, size: int) -> str:
    encoded = text.encode("utf-8", "replace")
    return encoded.decode() if len(encoded) <= size else encoded[: size - 3].decode("utf-8", "ignore") + "..."
