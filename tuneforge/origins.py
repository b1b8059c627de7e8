"""Where the content of a version was fetched from."""

from dataclasses import dataclass
from datetime import datetime

from tuneforge import _wire
from tuneforge.v1 import origins_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the content of a version was fetched from."""

    uri: str
    """Without what may be secret in it."""
    revision: str
    """What the address meant at that time: a commit, a package's version, an entity tag; empty where there is none."""
    digest: str
    """Digest of the manifest of the fetched files."""
    fetch_time: datetime


def source_from_proto(message: origins_pb2.Source) -> Source | None:
    """Converts where content came from; one that is not set, that of an upload, is None."""
    if not message.uri:
        return None
    return Source(
        uri=message.uri,
        revision=message.revision,
        digest=message.digest,
        fetch_time=_wire.instant(message.fetch_time),
    )
