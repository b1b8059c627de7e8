"""Deletes versions, data sets and models, unless something needs them. Runs in the transaction of its caller."""

from collections.abc import Sequence

from sqlalchemy import Connection

from services.grpckit.errors import Reason, ServiceError
from services.registry.retention import store
from services.registry.retention.holders import holders_of
from services.registry.retention.resources import Deletion, Holder, Retention, Sight, VersionName
from tuneforge.names import DatasetName, ModelName

_NAMED = 10
"""Holders named in an error; `GetRetention` names more."""


def retention_of(connection: Connection, name: VersionName, sight: Sight) -> Retention:
    """Returns what keeps a version, as somebody sees it.

    Raises:
        ServiceError: `NOT_FOUND`.
    """
    store.require_version(connection, name)
    return Retention(
        name=name,
        pins=store.pins_of(connection, name),
        expire_time_us=store.expire_time_us(connection, name),
        holders=tuple(_seen(holders_of(connection, [name]), sight)),
    )


def delete_version(
    connection: Connection, name: VersionName, *, actor: str, reason: str, time_us: int, sight: Sight
) -> Deletion:
    """Deletes a version.

    Raises:
        ServiceError: `NOT_FOUND`, `IN_USE`.
    """
    store.require_version(connection, name)
    _refuse_held(str(name), holders_of(connection, [name]), sight)
    store.bury_version(connection, name, time_us=time_us)
    deletion = Deletion(name=str(name), actor=actor, reason=reason, time_us=time_us, num_versions=1)
    store.add_deletion(connection, deletion)
    return deletion


def delete_collection(
    connection: Connection,
    name: DatasetName | ModelName,
    *,
    force: bool,
    actor: str,
    reason: str,
    time_us: int,
    sight: Sight,
) -> Deletion:
    """Deletes a data set or a model.

    Args:
        connection: In a transaction that writes.
        name: Which.
        force: Its versions too; without it they keep it.
        actor: Who.
        reason: Why.
        time_us: Now.
        sight: What the caller may know of.

    Raises:
        ServiceError: `NOT_FOUND`, `IN_USE`.
    """
    store.require_collection(connection, name)
    versions = store.live_versions(connection, name)
    if versions and not force:
        raise ServiceError(
            Reason.IN_USE,
            f"{name} has {_count(versions)}; to delete it with all it has, give `force` (on the command line --force)",
            metadata={"name": str(name), "holders": str(versions[-1]), "num_holders": str(len(versions))},
        )
    _refuse_held(str(name), holders_of(connection, versions), sight)
    for version in versions:
        store.bury_version(connection, version, time_us=time_us)
    store.bury_collection(connection, name, time_us=time_us)
    deletion = Deletion(name=str(name), actor=actor, reason=reason, time_us=time_us, num_versions=len(versions))
    store.add_deletion(connection, deletion)
    return deletion


def _count(versions: Sequence[VersionName]) -> str:
    return f"the version {versions[0]}" if len(versions) == 1 else f"{len(versions)} versions, up to {versions[-1]}"


def _seen(holding: Sequence[Holder], sight: Sight) -> list[Holder]:
    """Returns holders as somebody sees them, those without a name last."""
    return sorted((holder.seen(sight) for holder in holding), key=lambda holder: (not holder.name, holder))


def _refuse_held(name: str, holding: Sequence[Holder], sight: Sight) -> None:
    if not holding:
        return
    holders = _seen(holding, sight)
    listed = ", ".join(
        f"{holder.kind.value.lower().replace('_', ' ')} {holder.name or 'in a project of others'}"
        for holder in holders[:_NAMED]
    )
    more = f" and {len(holders) - _NAMED} more" if len(holders) > _NAMED else ""
    raise ServiceError(
        Reason.IN_USE,
        f"{name} is needed by {listed}{more}",
        metadata={
            "name": name,
            "holders": ",".join(holder.name for holder in holders[:_NAMED] if holder.name),
            "num_holders": str(len(holders)),
        },
    )
