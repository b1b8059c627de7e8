"""Where content came from, as rows; knows no grpc."""

from collections.abc import Iterable

from sqlalchemy import Connection, bindparam, insert, select

from services.registry.sources.origin import Source
from services.registry.tables.sources import SOURCES

# Built once: to build a query costs more than to run it.
_SOURCES = select(SOURCES).where(
    SOURCES.c.parent == bindparam("of_parent"), SOURCES.c.digest.in_(bindparam("digests", expanding=True))
)


def add_source(connection: Connection, parent: str, source: Source) -> Source:
    """Writes down where the content of a version-to-be came from; the first place that brought it stays.

    Written before the version is made, so that there is never a version without its source.
    """
    known = find_sources(connection, parent, [source.digest]).get(source.digest)
    if known is not None:
        return known
    connection.execute(
        insert(SOURCES).values(
            parent=parent,
            digest=source.digest,
            uri=source.uri,
            revision=source.revision,
            time_us=source.time_us,
        )
    )
    return source


def find_sources(connection: Connection, parent: str, digests: Iterable[str]) -> dict[str, Source]:
    """Returns digest -> source of those versions of a data set or model that were fetched."""
    wanted = list(digests)
    if not wanted:
        return {}
    rows = connection.execute(_SOURCES, {"of_parent": parent, "digests": wanted})
    return {
        row.digest: Source(uri=row.uri, revision=row.revision, digest=row.digest, time_us=row.time_us) for row in rows
    }
