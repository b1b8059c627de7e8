"""The rows that say which project may see which blob. See `collections.py` for the manners of such functions."""

from collections.abc import Iterable

from sqlalchemy import Connection, insert, select

from services.registry.tables import BLOBS

# Digests in one IN clause: far below every database's limit of parameters.
_DIGESTS_PER_QUERY = 500


def add_blob(connection: Connection, project: str, sha256: str, size_bytes: int, *, time_us: int) -> None:
    """Makes a blob visible in a project; does nothing when it is already."""
    if blob_sizes(connection, project, [sha256]):
        return
    connection.execute(
        insert(BLOBS).values(project=project, sha256=sha256, size_bytes=size_bytes, create_time_us=time_us)
    )


def blob_sizes(connection: Connection, project: str, digests: Iterable[str]) -> dict[str, int]:
    """Returns digest -> size in bytes of those blobs that the project has."""
    wanted = sorted(set(digests))
    sizes: dict[str, int] = {}
    for start in range(0, len(wanted), _DIGESTS_PER_QUERY):
        some = wanted[start : start + _DIGESTS_PER_QUERY]
        rows = connection.execute(
            select(BLOBS.c.sha256, BLOBS.c.size_bytes).where(BLOBS.c.project == project, BLOBS.c.sha256.in_(some))
        )
        sizes.update((row.sha256, row.size_bytes) for row in rows)
    return sizes
