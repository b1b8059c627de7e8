"""The rows of blobs: who may see them, where they lie, what uses them. See `collections.py` for the manners here.

A row of `blobs` is removed only by the collector, and only while no row of `blob_uses` needs it; both happen in one
transaction. So whoever makes a version calls `add_uses` in the transaction that makes it.
"""

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select, update

from services.grpckit.errors import Reason, ServiceError
from services.registry.tables import BLOB_OWNER, BLOB_PLACES, BLOB_TOMBSTONES, BLOB_USES, BLOBS
from tuneforge.manifest import Manifest
from tuneforge.names import project_of

# Digests in one IN clause: far below every database's limit of parameters.
_DIGESTS_PER_QUERY = 500


@dataclass(frozen=True, slots=True)
class Stored:
    """A verified content and where its bytes lie."""

    sha256: str
    place: str
    size_bytes: int
    is_damaged: bool = False
    """Its bytes were read since and were not those of the digest."""


def blob_sizes(connection: Connection, project: str, digests: Iterable[str]) -> dict[str, int]:
    """Returns digest -> size in bytes of those blobs that the project has."""
    sizes: dict[str, int] = {}
    for some in _batches(digests):
        rows = connection.execute(
            select(BLOBS.c.sha256, BLOBS.c.size_bytes).where(BLOBS.c.project == project, BLOBS.c.sha256.in_(some))
        )
        sizes.update((row.sha256, row.size_bytes) for row in rows)
    return sizes


def has_size(connection: Connection, project: str, size_bytes: int) -> bool:
    """Returns whether the project has a blob of a size."""
    query = select(BLOBS.c.sha256).where(BLOBS.c.project == project, BLOBS.c.size_bytes == size_bytes).limit(1)
    return connection.execute(query).first() is not None


def places(connection: Connection, digests: Iterable[str]) -> dict[str, Stored]:
    """Returns digest -> where its bytes lie; whoever asks has made sure that the project may see them."""
    found: dict[str, Stored] = {}
    for some in _batches(digests):
        rows = connection.execute(select(BLOB_PLACES).where(BLOB_PLACES.c.sha256.in_(some)))
        found.update(
            (row.sha256, Stored(row.sha256, row.place, row.size_bytes, row.damage_time_us is not None)) for row in rows
        )
    return found


def note_damage(connection: Connection, place: str, *, time_us: int | None) -> None:
    """Notes when the bytes at a place were found damaged; None: found whole. A place without a row is left alone."""
    connection.execute(update(BLOB_PLACES).where(BLOB_PLACES.c.place == place).values(damage_time_us=time_us))


def touch(connection: Connection, project: str, sha256: str, *, time_us: int) -> bool:
    """Notes that somebody relies on a blob now, so that the collector leaves it; returns whether the project has it."""
    statement = update(BLOBS).where(BLOBS.c.project == project, BLOBS.c.sha256 == sha256).values(used_time_us=time_us)
    return connection.execute(statement).rowcount == 1


def add_blob(connection: Connection, project: str, stored: Stored, *, damaged: str = "", time_us: int) -> bool:
    """Makes a verified content visible in a project; returns whether its place is the one that counts.

    When the content lies somewhere else already, that place goes on to count, and the new one is given to the
    collector.

    Args:
        connection: In a transaction that writes.
        project: Id of the project.
        stored: The content and where it lies.
        damaged: A place that was found damaged: the new one is to count in its stead.
        time_us: Now.

    Raises:
        ServiceError: `STORAGE_UNAVAILABLE`: the collector took the bytes for something left behind; send them again.
    """
    sha256, place = stored.sha256, stored.place
    doomed = select(BLOB_TOMBSTONES.c.place).where(BLOB_TOMBSTONES.c.place == place)
    if connection.execute(doomed).first() is not None:
        raise ServiceError(Reason.STORAGE_UNAVAILABLE, f"the upload of blob {sha256} took too long; send it again")
    known = places(connection, [sha256]).get(sha256)
    counts = known.place if known else None
    if counts is not None and counts == damaged:
        connection.execute(delete(BLOB_PLACES).where(BLOB_PLACES.c.sha256 == sha256))
        bury(connection, Stored(sha256, damaged, stored.size_bytes), time_us=time_us)
        counts = None
    if counts is None:
        row = {"sha256": sha256, "place": place, "size_bytes": stored.size_bytes, "create_time_us": time_us}
        connection.execute(insert(BLOB_PLACES).values(**row))
    elif counts != place:
        bury(connection, stored, time_us=time_us)
    if not touch(connection, project, sha256, time_us=time_us):
        row = {"project": project, "sha256": sha256, "size_bytes": stored.size_bytes}
        connection.execute(insert(BLOBS).values(**row, create_time_us=time_us, used_time_us=time_us))
    return counts in {None, place}


def bury(connection: Connection, stored: Stored, *, time_us: int) -> None:
    """Gives a place to the collector: from here on nothing may name it."""
    known = select(BLOB_TOMBSTONES.c.place).where(BLOB_TOMBSTONES.c.place == stored.place)
    if connection.execute(known).first() is None:
        row = {"place": stored.place, "sha256": stored.sha256, "size_bytes": stored.size_bytes, "time_us": time_us}
        connection.execute(insert(BLOB_TOMBSTONES).values(**row))


def forget_tombstone(connection: Connection, place: str) -> None:
    """Ends a deletion: the bytes at the place are gone."""
    connection.execute(delete(BLOB_TOMBSTONES).where(BLOB_TOMBSTONES.c.place == place))


def add_uses(connection: Connection, holder: str, manifest: Manifest, *, time_us: int) -> None:
    """Notes that a version needs the blobs of its manifest; repeated, it changes nothing.

    Args:
        connection: In the transaction that makes the version.
        holder: Resource name of the version.
        manifest: Its files.
        time_us: Now.

    Raises:
        ServiceError: `BLOB_MISSING`: the collector was faster; upload the blobs and make the version again.
    """
    project = project_of(holder)
    digests = {file.sha256 for file in manifest.files}
    for some in _batches(digests):
        # The update holds the rows against a collection that runs at the same moment in another connection.
        statement = update(BLOBS).where(BLOBS.c.project == project, BLOBS.c.sha256.in_(some))
        if connection.execute(statement.values(used_time_us=time_us)).rowcount != len(some):
            missing = sorted(set(some) - set(blob_sizes(connection, project, some)))
            raise ServiceError(
                Reason.BLOB_MISSING,
                f"{len(missing)} blobs of {holder} are not stored any more",
                metadata={"missing": ",".join(missing[:40]), "num_missing": str(len(missing))},
            )
    held = set(connection.execute(select(BLOB_USES.c.sha256).where(BLOB_USES.c.holder == holder)).scalars())
    rows = [{"project": project, "sha256": sha256, "holder": holder} for sha256 in sorted(digests - held)]
    if rows:
        connection.execute(insert(BLOB_USES), rows)


def remove_uses(connection: Connection, holder: str) -> None:
    """Forgets what a version needs, in the transaction that deletes it."""
    connection.execute(delete(BLOB_USES).where(BLOB_USES.c.holder == holder))


def count_uses(connection: Connection, holder: str) -> int:
    """Returns how many blobs are kept for a holder."""
    return connection.execute(select(func.count()).where(BLOB_USES.c.holder == holder)).scalar_one()


def owner(connection: Connection) -> str:
    """Returns by what name this database owns the home of its blobs; makes it at the first call."""
    found = connection.execute(select(BLOB_OWNER.c.owner)).scalars().first()
    if found is None:
        found = secrets.token_hex(16)
        connection.execute(insert(BLOB_OWNER).values(owner=found))
    return found


def _batches(digests: Iterable[str]) -> Iterator[list[str]]:
    wanted = sorted(set(digests))
    for start in range(0, len(wanted), _DIGESTS_PER_QUERY):
        yield wanted[start : start + _DIGESTS_PER_QUERY]
