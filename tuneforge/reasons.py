"""Why a call or a run failed, by the names of `protos/tuneforge/v1/errors.proto`."""

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuneforge.v1 import errors_pb2

_WIRE_PREFIX = "ERROR_REASON_"


class Reason(StrEnum):
    """A reason, by its name on the wire (`ErrorInfo.reason`)."""

    INVALID_FIELD = "INVALID_FIELD"
    INVALID_NAME = "INVALID_NAME"
    INVALID_PAGE_TOKEN = "INVALID_PAGE_TOKEN"  # noqa: S105 - the name of an error
    INVALID_RESUME_TOKEN = "INVALID_RESUME_TOKEN"  # noqa: S105 - the name of an error
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    DIGEST_MISMATCH = "DIGEST_MISMATCH"
    INVALID_DATA = "INVALID_DATA"
    INVALID_MODEL = "INVALID_MODEL"
    CYCLE = "CYCLE"
    LINEAGE_DEPTH = "LINEAGE_DEPTH"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    ETAG_MISMATCH = "ETAG_MISMATCH"
    STALE_ATTEMPT = "STALE_ATTEMPT"
    OFFSET_MISMATCH = "OFFSET_MISMATCH"
    BLOB_MISSING = "BLOB_MISSING"
    WRONG_STATE = "WRONG_STATE"
    ALREADY_PUBLISHED = "ALREADY_PUBLISHED"
    NODE_MANAGED = "NODE_MANAGED"
    DOES_NOT_FIT = "DOES_NOT_FIT"
    BASE_MISMATCH = "BASE_MISMATCH"
    LOCAL_PATH_REFUSED = "LOCAL_PATH_REFUSED"
    IN_USE = "IN_USE"
    GATE_FAILED = "GATE_FAILED"
    NOT_PROMOTABLE = "NOT_PROMOTABLE"
    STORAGE_MISCONFIGURED = "STORAGE_MISCONFIGURED"
    REVOKED = "REVOKED"
    CURSOR_OUT_OF_RANGE = "CURSOR_OUT_OF_RANGE"
    COMPACTED = "COMPACTED"
    NODE_FULL = "NODE_FULL"
    TOO_MANY_CALLS = "TOO_MANY_CALLS"
    DISK_FULL = "DISK_FULL"
    PEER_UNAVAILABLE = "PEER_UNAVAILABLE"
    DRAINING = "DRAINING"
    ENGINE_NOT_READY = "ENGINE_NOT_READY"
    DATABASE_UNAVAILABLE = "DATABASE_UNAVAILABLE"
    STORAGE_UNAVAILABLE = "STORAGE_UNAVAILABLE"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    BLOB_DAMAGED = "BLOB_DAMAGED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    INTERNAL = "INTERNAL"
    URL_NOT_ALLOWED = "URL_NOT_ALLOWED"
    SOURCE_NOT_FOUND = "SOURCE_NOT_FOUND"
    SOURCE_DENIED = "SOURCE_DENIED"
    SOURCE_TOO_LARGE = "SOURCE_TOO_LARGE"
    SOURCE_UNAVAILABLE = "SOURCE_UNAVAILABLE"
    WORK_LIMIT = "WORK_LIMIT"
    LOSS_NOT_FINITE = "LOSS_NOT_FINITE"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    NOTHING_TO_LEARN = "NOTHING_TO_LEARN"
    WORKER_LOST = "WORKER_LOST"
    NODE_LOST = "NODE_LOST"
    INTEGRITY = "INTEGRITY"
    DEPENDENCY_FAILED = "DEPENDENCY_FAILED"
    RETRIES_SPENT = "RETRIES_SPENT"
    RESUME_MISMATCH = "RESUME_MISMATCH"
    SIGNATURE = "SIGNATURE"
    LOSS_EXPLODED = "LOSS_EXPLODED"
    NO_EFFECT = "NO_EFFECT"
    STALLED = "STALLED"
    GANG_BROKEN = "GANG_BROKEN"
    GANG_MIXED = "GANG_MIXED"
    MERGE_DIVERGED = "MERGE_DIVERGED"
    TRIALS_FAILED = "TRIALS_FAILED"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    QUOTA_TOO_SMALL = "QUOTA_TOO_SMALL"
    BUDGET_SPENT = "BUDGET_SPENT"

    @property
    def number(self) -> "errors_pb2.ErrorReason.ValueType":
        """The value of `tuneforge.v1.ErrorReason`, for `Failure.reason`."""
        from tuneforge.v1 import errors_pb2

        return errors_pb2.ErrorReason.Value(_WIRE_PREFIX + self.value)

    @classmethod
    def from_number(cls, number: int) -> "Reason":
        """Returns the reason of a value of `tuneforge.v1.ErrorReason`; INTERNAL for one that this release lacks."""
        from tuneforge.v1 import errors_pb2

        try:
            return cls(errors_pb2.ErrorReason.Name(errors_pb2.ErrorReason.ValueType(number)).removeprefix(_WIRE_PREFIX))
        except ValueError:
            return cls.INTERNAL
