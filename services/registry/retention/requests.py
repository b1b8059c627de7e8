"""Fields of requests about retention."""

from collections.abc import Sequence

from services.grpckit.errors import FieldViolation, invalid_fields
from services.registry.retention.resources import (
    LONGEST_PIN_REASON,
    LONGEST_REASON,
    LONGEST_UPLOAD_KEPT_S,
    SHORTEST_UPLOAD_KEPT_S,
)
from tuneforge.names import InvalidName, project_of
from tuneforge.v1 import retention_pb2 as pb

_POLICY = "projects/{project}/retentionPolicy"


def check_pin(reason: str) -> None:
    """Refuses a pin without a reason, or with a long one.

    Raises:
        ServiceError: `INVALID_FIELD`.
    """
    if not reason.strip() or len(reason) > LONGEST_PIN_REASON:
        problem = f"has {len(reason)} characters; say in 1 to {LONGEST_PIN_REASON} why it is to be kept"
        raise invalid_fields([FieldViolation("reason", problem)])


def check_reason(reason: str) -> None:
    """Refuses a reason that is too long.

    Raises:
        ServiceError: `INVALID_FIELD`.
    """
    if len(reason) > LONGEST_REASON:
        problem = f"has {len(reason)} characters; at most {LONGEST_REASON} are taken"
        raise invalid_fields([FieldViolation("reason", problem)])


def expire_time_us(request: pb.SetExpirationRequest, now_us: int) -> int | None:
    """Returns when a version is to expire; None: never.

    Raises:
        ServiceError: `INVALID_FIELD`: the time is past.
    """
    if not request.HasField("expire_time"):
        return None
    time_us: int = request.expire_time.ToMicroseconds()
    if time_us <= now_us:
        problem = "is past; give a time to come, or delete the version"
        raise invalid_fields([FieldViolation("expire_time", problem)])
    return time_us


def policy_project(name: str) -> str:
    """Returns the project of a retention policy's name.

    Raises:
        InvalidName: It is no such name.
    """
    project = project_of(name)
    if name != f"projects/{project}/retentionPolicy":
        raise InvalidName(name, _POLICY)
    return project


def check_mask(paths: Sequence[str]) -> None:
    """Refuses a mask that is empty or names what a policy has not.

    Raises:
        ServiceError: `INVALID_FIELD`.
    """
    if set(paths) != {"unfinished_uploads"}:
        problem = f"names {', '.join(paths)[:200] or 'nothing'}; give `unfinished_uploads`"
        raise invalid_fields([FieldViolation("update_mask", problem)])


def upload_kept_s(policy: pb.RetentionPolicy) -> int | None:
    """Returns for how many seconds unfinished uploads are kept; None: as the registry's setting says.

    Raises:
        ServiceError: `INVALID_FIELD`: out of range.
    """
    if not policy.HasField("unfinished_uploads"):
        return None
    seconds: int = policy.unfinished_uploads.seconds
    if not SHORTEST_UPLOAD_KEPT_S <= seconds <= LONGEST_UPLOAD_KEPT_S:
        problem = f"is {seconds} seconds; give {SHORTEST_UPLOAD_KEPT_S} to {LONGEST_UPLOAD_KEPT_S}"
        raise invalid_fields([FieldViolation("policy.unfinished_uploads", problem)])
    return seconds
