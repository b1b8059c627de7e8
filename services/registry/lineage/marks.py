"""What answers about versions carry beside the version: its signature, its source, the revocations it falls under."""

from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import Connection, bindparam, exists, select

from services.registry.lineage import revocations
from services.registry.lineage.sight import Sees
from services.registry.lineage.wire import revocation_to_proto
from services.registry.sources.marks import fill_sources
from services.registry.tables.lineage import REVOCATIONS
from services.registry.tables.signing import SIGNATURES
from tuneforge.v1 import datasets_pb2, models_pb2, signing_pb2

Version = TypeVar("Version", models_pb2.ModelVersion, datasets_pb2.DatasetVersion)

_MARKS = select(
    SIGNATURES.c.key_id, SIGNATURES.c.value, exists(select(REVOCATIONS.c.sequence)).label("has_revocations")
).where(SIGNATURES.c.version == bindparam("version"))


def marked(connection: Connection, version: Version, sees: Sees) -> Version:
    """Adds signature, source and revocations to a version's message, and returns it.

    Args:
        connection: To the database.
        version: The message.
        sees: Of which projects revoked data may be named.
    """
    # One query for signature and revocations: every read of a version pays for it, and hardly any registry has one.
    row = connection.execute(_MARKS, {"version": version.name}).one_or_none()
    if row is not None and row.key_id:
        version.signature.CopyFrom(signing_pb2.Signature(key_id=row.key_id, value=row.value))
        if not row.has_revocations:
            fill_sources(connection, [version])
            return version
    return mark_all(connection, [version], sees)[0]


def mark_all(connection: Connection, versions: Sequence[Version], sees: Sees) -> Sequence[Version]:
    """Adds revocations and sources to the messages of a list, and returns them; as `marked`."""
    fill_sources(connection, versions)
    found = revocations.taints(connection, [version.name for version in versions])
    for version in versions:
        messages = map(revocation_to_proto, revocations.seen_by(found.get(version.name, ()), sees))
        if isinstance(version, models_pb2.ModelVersion):
            version.taints.extend(messages)
        else:
            version.revocations.extend(messages)
    return versions
