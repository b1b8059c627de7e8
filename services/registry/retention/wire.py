"""Retention as messages, and requests as values."""

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from services.registry.retention.collected import Collected
from services.registry.retention.resources import MOST_HOLDERS_NAMED, Deletion, Hold, Retention
from tuneforge.v1 import retention_pb2 as pb


def retention_to_proto(retention: Retention) -> pb.Retention:
    """Returns the message of what keeps a version."""
    message = pb.Retention(name=str(retention.name), has_more_holders=len(retention.holders) > MOST_HOLDERS_NAMED)
    for pin in retention.pins:
        message.pins.add(reason=pin.reason, actor=pin.actor, create_time=_time(pin.time_us))
    if retention.expire_time_us is not None:
        message.expire_time.CopyFrom(_time(retention.expire_time_us))
    for holder in retention.holders[:MOST_HOLDERS_NAMED]:
        message.holders.add(name=holder.name, kind=pb.HolderKind.Value(f"HOLDER_KIND_{holder.kind.value}"))
    return message


def hold_to_proto(hold: Hold) -> pb.Hold:
    """Returns the message of a hold."""
    return pb.Hold(holder=hold.holder, version=hold.version, create_time=_time(hold.time_us))


def deletion_to_proto(deletion: Deletion) -> pb.Deletion:
    """Returns the message of a deletion."""
    return pb.Deletion(
        name=deletion.name,
        delete_time=_time(deletion.time_us),
        actor=deletion.actor,
        reason=deletion.reason,
        num_versions=deletion.num_versions,
    )


def policy_to_proto(name: str, upload_kept_s: int | None) -> pb.RetentionPolicy:
    """Returns the message of a project's policy."""
    policy = pb.RetentionPolicy(name=name)
    if upload_kept_s is not None:
        policy.unfinished_uploads.FromSeconds(upload_kept_s)
    return policy


def collected_to_proto(found: Collected) -> pb.CollectGarbageResponse:
    """Returns the message of a collection."""
    return pb.CollectGarbageResponse(
        num_expired_versions=found.expired_versions,
        num_held_versions=found.held_versions,
        num_uploads=found.uploads,
        num_blobs=found.blobs,
        num_contents=found.contents,
        num_orphans=found.orphans,
        freed_bytes=found.freed_bytes,
        num_failures=found.failures,
        validate_only=found.validate_only,
    )


def _time(time_us: int) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(datetime.fromtimestamp(time_us / 1e6, UTC))
    return message
