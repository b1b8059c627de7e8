"""One table from the reason of an error to its gRPC code, its exception and its cure.

The reasons themselves are declared in `protos/tuneforge/v1/errors.proto`, and a test holds the table against that enum.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tuneforge.exceptions import (
    AlreadyExists,
    Conflict,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
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
from tuneforge.reasons import Reason


@dataclass(frozen=True, slots=True)
class ReasonRow:
    """What belongs to one reason."""

    code: str
    """Name of the gRPC status code. For reasons of failures inside a resource: the code if a call meets it."""
    exception: type[TuneforgeError]
    """What the SDK raises."""
    cure: str
    """What to do: one sentence for a person."""
    retry_after_s: float | None = None
    """Default of `RetryInfo` in seconds; None where a retry alone does not help."""


_INVALID, _STATE = "INVALID_ARGUMENT", "FAILED_PRECONDITION"
_Row = ReasonRow

TABLE: Mapping[str, ReasonRow] = {
    Reason.INVALID_FIELD: _Row(_INVALID, InvalidArgument, "Correct the fields that are named."),
    Reason.INVALID_NAME: _Row(_INVALID, InvalidArgument, "Give the name in the form that is shown."),
    Reason.INVALID_PAGE_TOKEN: _Row(_INVALID, InvalidArgument, "Start the list again without a page token."),
    Reason.INVALID_RESUME_TOKEN: _Row(_INVALID, InvalidArgument, "Start the watch again without a resume token."),
    Reason.REQUEST_ID_REUSED: _Row(_INVALID, InvalidArgument, "Send a new request id with a changed request."),
    Reason.DIGEST_MISMATCH: _Row(_INVALID, InvalidArgument, "Compute the digest again and send all bytes once more."),
    Reason.INVALID_DATA: _Row(_INVALID, InvalidArgument, "Correct the lines that are named, then send the file again."),
    Reason.INVALID_MODEL: _Row(_INVALID, InvalidArgument, "Give safetensors weights of a supported architecture."),
    Reason.CYCLE: _Row(_INVALID, InvalidArgument, "Name what it was made from, not what was made from it."),
    Reason.LINEAGE_DEPTH: _Row(_INVALID, InvalidArgument, "Merge the adapters into a whole model and go on from that."),
    Reason.NOT_FOUND: _Row("NOT_FOUND", NotFound, "List what there is, and check project and name."),
    Reason.ALREADY_EXISTS: _Row("ALREADY_EXISTS", AlreadyExists, "Use the existing one or choose another id."),
    Reason.ETAG_MISMATCH: _Row("ABORTED", Conflict, "Read the resource again, decide, and retry with its etag."),
    Reason.STALE_ATTEMPT: _Row("ABORTED", Conflict, "A newer attempt or node has taken over; this one must end."),
    Reason.OFFSET_MISMATCH: _Row("ABORTED", Conflict, "Ask for the committed offset and go on from there."),
    Reason.BLOB_MISSING: _Row(_STATE, FailedPrecondition, "Upload the blobs that are named, then call again."),
    Reason.WRONG_STATE: _Row(_STATE, FailedPrecondition, "Look at the resource's state; it does not allow this."),
    Reason.ALREADY_PUBLISHED: _Row(_STATE, FailedPrecondition, "Use the version that the job has published."),
    Reason.NODE_MANAGED: _Row(_STATE, FailedPrecondition, "Submit a job to the node's scheduler instead."),
    Reason.DOES_NOT_FIT: _Row(_STATE, FailedPrecondition, "Ask for less, as the message says, or add a larger node."),
    Reason.BASE_MISMATCH: _Row(_STATE, FailedPrecondition, "Serve the adapter on the base it was trained on."),
    Reason.LOCAL_PATH_REFUSED: _Row(
        _STATE, FailedPrecondition, "Register the files at the registry, or put them below the node's inputs folder."
    ),
    Reason.GATE_FAILED: _Row(
        _STATE, GateFailed, "Better the version, or ask who sets the gates; `gates check` asks them."
    ),
    Reason.NOT_PROMOTABLE: _Row(
        _STATE, FailedPrecondition, "The message says what is missing: once it is there, promote it."
    ),
    Reason.IN_USE: _Row(_STATE, FailedPrecondition, "Move, unpin, end or delete what the message names first."),
    Reason.STORAGE_MISCONFIGURED: _Row(
        _STATE, FailedPrecondition, "Ask the operator to correct the registry's object store settings."
    ),
    Reason.REVOKED: _Row(_STATE, FailedPrecondition, "Use other data, or a version that was not made from it."),
    Reason.CURSOR_OUT_OF_RANGE: _Row("OUT_OF_RANGE", OutOfRange, "Start again without a cursor."),
    Reason.COMPACTED: _Row("OUT_OF_RANGE", OutOfRange, "Start again without a cursor: what is left of the log comes."),
    Reason.NODE_FULL: _Row(
        "RESOURCE_EXHAUSTED", ResourceExhausted, "Wait until an attempt ends, or use another node.", 5.0
    ),
    Reason.TOO_MANY_CALLS: _Row("RESOURCE_EXHAUSTED", ResourceExhausted, "Retry later, with fewer calls open.", 1.0),
    Reason.DISK_FULL: _Row("RESOURCE_EXHAUSTED", ResourceExhausted, "Free space on the service's disk.", 30.0),
    Reason.PEER_UNAVAILABLE: _Row(
        "UNAVAILABLE", Unavailable, "Check that the service runs at this address, then retry.", 1.0
    ),
    Reason.DRAINING: _Row("UNAVAILABLE", Unavailable, "Retry; another replica or the next start answers.", 1.0),
    Reason.STANDBY: _Row("UNAVAILABLE", Unavailable, "Ask the one that leads, or give the addresses of all.", 0.1),
    Reason.ENGINE_NOT_READY: _Row("UNAVAILABLE", Unavailable, "Wait until the deployment is ready, then retry.", 1.0),
    Reason.DATABASE_UNAVAILABLE: _Row(
        "UNAVAILABLE", Unavailable, "Retry with the same request id; the service connects again by itself.", 1.0
    ),
    Reason.STORAGE_UNAVAILABLE: _Row("UNAVAILABLE", Unavailable, "Retry; the object store is away or busy.", 2.0),
    Reason.UNAUTHENTICATED: _Row("UNAUTHENTICATED", Unauthenticated, "Send a valid token (TUNEFORGE_TOKEN)."),
    Reason.PERMISSION_DENIED: _Row(
        "PERMISSION_DENIED", PermissionDenied, "Ask for the role or the project that the message names."
    ),
    Reason.BLOB_DAMAGED: _Row(
        "DATA_LOSS",
        DataLoss,
        "Upload the same files again, e.g. by `tuneforge models repair`, or restore the store from a backup.",
    ),
    Reason.DEADLINE_EXCEEDED: _Row(
        "DEADLINE_EXCEEDED", DeadlineExceeded, "Retry with a longer deadline and the same request id."
    ),
    Reason.UPLOAD_SILENT: _Row("DEADLINE_EXCEEDED", DeadlineExceeded, "Ask for the committed bytes and send the rest."),
    Reason.INTERNAL: _Row("INTERNAL", InternalError, "Report the incident id; the service's log has it."),
    Reason.URL_NOT_ALLOWED: _Row(_INVALID, InvalidArgument, "Give an address that the operator's settings allow."),
    Reason.SOURCE_NOT_FOUND: _Row("NOT_FOUND", NotFound, "Check the address, and whether the place can be reached."),
    Reason.SOURCE_DENIED: _Row(_STATE, FailedPrecondition, "Name a connection whose credentials may read it."),
    Reason.SOURCE_TOO_LARGE: _Row(_STATE, FailedPrecondition, "Take a part, or ask the operator for a higher limit."),
    Reason.SOURCE_UNAVAILABLE: _Row("UNAVAILABLE", Unavailable, "Call again; what has arrived is kept.", 5.0),
    Reason.WORK_LIMIT: _Row(_STATE, FailedPrecondition, "Do it locally: `tuneforge datasets lint FILE`."),
    Reason.LOSS_NOT_FINITE: _Row(_STATE, JobFailed, "Lower the learning rate or look at the rows of that step."),
    Reason.OUT_OF_MEMORY: _Row(_STATE, JobFailed, "Lower micro-batch or tokens per row, or use a quantised base."),
    Reason.DATA_LEAK: _Row(_STATE, JobFailed, "Take these rows out of one side; `tuneforge datasets lint` lists them."),
    Reason.NOTHING_TO_LEARN: _Row(_STATE, JobFailed, "Give rows with an answer that fits in the token limit."),
    Reason.WORKER_LOST: _Row("UNAVAILABLE", JobFailed, "Nothing; it is started again from its last checkpoint.", 5.0),
    Reason.NODE_LOST: _Row("UNAVAILABLE", JobFailed, "Nothing; it is started again on another node.", 5.0),
    Reason.INTEGRITY: _Row("DATA_LOSS", JobFailed, "Delete the damaged file; it is fetched again by its digest."),
    Reason.DEPENDENCY_FAILED: _Row(_STATE, JobFailed, "Repair the job it waits for and submit both again."),
    Reason.QUARANTINED: _Row(_STATE, JobFailed, "Look at the evidence in its message; then create it again."),
    Reason.RETRIES_SPENT: _Row(_STATE, JobFailed, "Look at its attempts for the cause, then submit again."),
    Reason.SIGNATURE: _Row("DATA_LOSS", JobFailed, "Compare the keys trusted here with those of the registry."),
    Reason.GANG_BROKEN: _Row("UNAVAILABLE", JobFailed, "Nothing; all nodes start again from the last checkpoint.", 5.0),
    Reason.GANG_MIXED: _Row(_STATE, JobFailed, "Label nodes that are alike, and ask for the label in `resources`."),
    Reason.DEVICE_LOST: _Row("UNAVAILABLE", JobFailed, "Look at the node's device; the job is started again.", 5.0),
    Reason.MERGE_DIVERGED: _Row(
        _STATE, JobFailed, "Merge in FP32 (`output.merge.format`), allow less agreement, or use the adapter."
    ),
    Reason.RESUME_MISMATCH: _Row(_STATE, JobFailed, "Resume where the job began, or start a new job."),
    Reason.LOSS_EXPLODED: _Row(_STATE, JobFailed, "Lower the learning rate or lengthen the warm-up."),
    Reason.NO_EFFECT: _Row(_STATE, JobFailed, "Train longer, raise the learning rate, or check the adapters' layers."),
    Reason.TRIALS_FAILED: _Row(_STATE, JobFailed, "Look at the failures of its trials, then narrow the space."),
    Reason.QUOTA_EXCEEDED: _Row(
        "RESOURCE_EXHAUSTED",
        ResourceExhausted,
        "Wait until a job of the project has started or ended, or ask an operator for a larger quota.",
        10.0,
    ),
    Reason.QUOTA_TOO_SMALL: _Row(
        _STATE, FailedPrecondition, "Ask for less, as the message says, or ask an operator for a larger quota."
    ),
    Reason.BUDGET_SPENT: _Row(
        _STATE, FailedPrecondition, "Resume it with a larger budget, or ask an operator to raise the project's."
    ),
    Reason.STALLED: _Row("UNAVAILABLE", JobFailed, "Look at the stacks that its log has; it is started again.", 5.0),
}
"""The table: reason → code, exception, cure."""
