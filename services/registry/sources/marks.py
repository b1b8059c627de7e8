"""Adds to the messages of versions where their content was fetched from."""

from collections.abc import Sequence

from sqlalchemy import Connection

from services.registry.sources.origin import Source
from services.registry.sources.store import find_sources
from services.registry.wire import timestamp
from tuneforge.v1 import datasets_pb2, models_pb2, origins_pb2


def fill_sources(
    connection: Connection, versions: Sequence[models_pb2.ModelVersion] | Sequence[datasets_pb2.DatasetVersion]
) -> None:
    """Sets `source` in the messages of versions that were fetched."""
    digests: dict[str, list[str]] = {}
    for version in versions:
        digests.setdefault(_parent(version.name), []).append(version.manifest.digest)
    found = {parent: find_sources(connection, parent, some) for parent, some in digests.items()}
    for version in versions:
        source = found[_parent(version.name)].get(version.manifest.digest)
        if source is not None:
            version.source.CopyFrom(source_to_proto(source))


def source_to_proto(source: Source) -> origins_pb2.Source:
    """Returns the message of where content came from."""
    return origins_pb2.Source(
        uri=source.uri, revision=source.revision, digest=source.digest, fetch_time=timestamp(source.time_us)
    )


def _parent(version_name: str) -> str:
    return version_name.partition("/versions/")[0]
