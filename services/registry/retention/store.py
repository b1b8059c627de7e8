"""The rows of pins, expirations, deletions and policies. See `collections.py` for the manners of such functions."""

from sqlalchemy import Connection, Table, bindparam, delete, func, insert, select, update

from services.grpckit.errors import not_found
from services.registry.blobs.store import remove_uses
from services.registry.retention.resources import Deletion, Pin, VersionName
from services.registry.tables import (
    DATASET_TAGS,
    DATASET_VERSIONS,
    DATASETS,
    DELETIONS,
    EXPIRATIONS,
    MODEL_FACTS,
    MODEL_LABELS,
    MODEL_METRICS,
    MODEL_VERSIONS,
    MODELS,
    PINS,
    RETENTION_POLICIES,
)
from tuneforge.names import DatasetName, DatasetVersionName, ModelName, ModelVersionName

# Made once: every job that is submitted asks for two versions.
_LIVE = {
    table.name: select(table.c.version).where(
        table.c.project == bindparam("of_project"),
        table.c[parent] == bindparam("of_parent"),
        table.c.version == bindparam("of_version"),
        table.c.delete_time_us.is_(None),
    )
    for table, parent in ((DATASET_VERSIONS, "dataset"), (MODEL_VERSIONS, "model"))
}


def require_version(connection: Connection, name: VersionName) -> None:
    """Refuses a name of which there is no version, or a deleted one.

    Raises:
        ServiceError: `NOT_FOUND`.
    """
    table, _ = _table_of(name)
    key = {"of_project": name.project, "of_parent": _id_of(name.parent), "of_version": name.version}
    if connection.execute(_LIVE[table.name], key).first() is None:
        raise not_found("data set version" if table is DATASET_VERSIONS else "model version", name)


def require_collection(connection: Connection, name: DatasetName | ModelName) -> None:
    """Refuses a name of which there is no data set or model, or a deleted one.

    Raises:
        ServiceError: `NOT_FOUND`.
    """
    table = DATASETS if isinstance(name, DatasetName) else MODELS
    found = select(table.c.id).where(
        table.c.project == name.project, table.c.id == _id_of(name), table.c.delete_time_us.is_(None)
    )
    if connection.execute(found).first() is None:
        raise not_found("data set" if table is DATASETS else "model", name)


def live_versions(connection: Connection, name: DatasetName | ModelName) -> list[VersionName]:
    """Returns the versions of a data set or a model that are not deleted, by number."""
    table, parent = (DATASET_VERSIONS, "dataset") if isinstance(name, DatasetName) else (MODEL_VERSIONS, "model")
    numbers = connection.execute(
        select(table.c.version)
        .where(table.c.project == name.project, table.c[parent] == _id_of(name), table.c.delete_time_us.is_(None))
        .order_by(table.c.version)
    ).scalars()
    return [name.version(number) for number in numbers]


def bury_version(connection: Connection, name: VersionName, *, time_us: int) -> None:
    """Makes a version a tombstone: its number stays taken, its blobs are free, its content may come again."""
    table, parent = _table_of(name)
    of_parent = (table.c.project == name.project, table.c[parent] == _id_of(name.parent))
    freed = {} if table is DATASET_VERSIONS else {"import_digest": None}
    connection.execute(
        update(table).where(*of_parent, table.c.version == name.version).values(delete_time_us=time_us, **freed)
    )
    remove_uses(connection, str(name))
    connection.execute(delete(EXPIRATIONS).where(EXPIRATIONS.c.name == str(name)))
    if isinstance(name, ModelVersionName):  # what lists find it by
        for facts in (MODEL_FACTS, MODEL_LABELS, MODEL_METRICS):
            key = (facts.c.project == name.project, facts.c.model == name.model, facts.c.version == name.version)
            connection.execute(delete(facts).where(*key))
    newest = select(func.coalesce(func.max(table.c.version), 0)).where(*of_parent, table.c.delete_time_us.is_(None))
    collection = DATASETS if table is DATASET_VERSIONS else MODELS
    connection.execute(
        update(collection)
        .where(collection.c.project == name.project, collection.c.id == _id_of(name.parent))
        .values(latest=newest.scalar_subquery())
    )


def bury_collection(connection: Connection, name: DatasetName | ModelName, *, time_us: int) -> None:
    """Makes a data set or a model a tombstone; created again under its name, its numbers go on."""
    if isinstance(name, DatasetName):
        own = (DATASETS.c.project == name.project, DATASETS.c.id == name.dataset)
        connection.execute(update(DATASETS).where(*own).values(delete_time_us=time_us, metadata_json="{}"))
        connection.execute(
            delete(DATASET_TAGS).where(DATASET_TAGS.c.project == name.project, DATASET_TAGS.c.dataset == name.dataset)
        )
        return
    own = (MODELS.c.project == name.project, MODELS.c.id == name.model)
    connection.execute(update(MODELS).where(*own).values(delete_time_us=time_us))
    for facts in (MODEL_FACTS, MODEL_LABELS):
        connection.execute(delete(facts).where(facts.c.project == name.project, facts.c.model == name.model))


def add_deletion(connection: Connection, deletion: Deletion) -> None:
    """Writes down who deleted what, and why."""
    connection.execute(
        insert(DELETIONS).values(
            name=deletion.name, time_us=deletion.time_us, actor=deletion.actor, reason=deletion.reason
        )
    )


# --- pins -------------------------------------------------------------------------------------------------------------
def pins_of(connection: Connection, name: VersionName) -> tuple[Pin, ...]:
    """Returns the pins of a version, by reason."""
    rows = connection.execute(select(PINS).where(PINS.c.name == str(name)).order_by(PINS.c.reason))
    return tuple(Pin(row.reason, row.actor, row.time_us) for row in rows)


def add_pin(connection: Connection, name: VersionName, pin: Pin) -> None:
    """Pins a version for a reason; the first one to give it stays the one who did."""
    is_there = select(PINS.c.name).where(PINS.c.name == str(name), PINS.c.reason == pin.reason)
    if connection.execute(is_there).first() is None:
        row = {"name": str(name), "reason": pin.reason, "actor": pin.actor, "time_us": pin.time_us}
        connection.execute(insert(PINS).values(**row))


def remove_pins(connection: Connection, name: VersionName, reason: str) -> None:
    """Removes the pin of a version for a reason, all of its pins for an empty one."""
    statement = delete(PINS).where(PINS.c.name == str(name))
    connection.execute(statement.where(PINS.c.reason == reason) if reason else statement)


# --- expirations ------------------------------------------------------------------------------------------------------
def expire_time_us(connection: Connection, name: VersionName) -> int | None:
    """Returns when a version is to be deleted; None: never."""
    statement = select(EXPIRATIONS.c.expire_time_us).where(EXPIRATIONS.c.name == str(name))
    found: int | None = connection.execute(statement).scalar_one_or_none()
    return found


def set_expiration(connection: Connection, name: VersionName, time_us: int | None, *, actor: str) -> None:
    """Sets when a version is to be deleted; None: never."""
    connection.execute(delete(EXPIRATIONS).where(EXPIRATIONS.c.name == str(name)))
    if time_us is not None:
        connection.execute(insert(EXPIRATIONS).values(name=str(name), expire_time_us=time_us, actor=actor))


def expired(connection: Connection, now_us: int) -> list[str]:
    """Returns the names of versions whose time has come, the oldest first."""
    statement = select(EXPIRATIONS.c.name).where(EXPIRATIONS.c.expire_time_us <= now_us)
    return list(connection.execute(statement.order_by(EXPIRATIONS.c.expire_time_us)).scalars())


# --- policies ---------------------------------------------------------------------------------------------------------
def upload_kept_s(connection: Connection, project: str) -> int | None:
    """Returns for how many seconds a project keeps unfinished uploads; None: as the registry's setting says."""
    statement = select(RETENTION_POLICIES.c.upload_kept_s).where(RETENTION_POLICIES.c.project == project)
    found: int | None = connection.execute(statement).scalar_one_or_none()
    return found


def set_upload_kept_s(connection: Connection, project: str, seconds: int | None, *, time_us: int) -> None:
    """Sets it; None goes back to the registry's setting."""
    connection.execute(delete(RETENTION_POLICIES).where(RETENTION_POLICIES.c.project == project))
    if seconds is not None:
        row = {"project": project, "upload_kept_s": seconds, "update_time_us": time_us}
        connection.execute(insert(RETENTION_POLICIES).values(**row))


def _table_of(name: VersionName) -> tuple[Table, str]:
    return (DATASET_VERSIONS, "dataset") if isinstance(name, DatasetVersionName) else (MODEL_VERSIONS, "model")


def _id_of(name: DatasetName | ModelName) -> str:
    return name.dataset if isinstance(name, DatasetName) else name.model
