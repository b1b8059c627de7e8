"""What answers about versions carry beside the version: its signature, its source, the revocations it falls under."""

from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import Connection

from services.registry.lineage import revocations
from services.registry.lineage.wire import revocation_to_proto
from services.registry.signing.store import find_signature
from services.registry.signing.wire import signature_to_proto
from services.registry.sources.marks import fill_sources
from tuneforge.v1 import datasets_pb2, models_pb2

Version = TypeVar("Version", models_pb2.ModelVersion, datasets_pb2.DatasetVersion)


def marked(connection: Connection, version: Version) -> Version:
    """Adds signature and revocations to a version's message, and returns it."""
    signature = find_signature(connection, version.name)
    if signature is not None:
        version.signature.CopyFrom(signature_to_proto(signature))
    return mark_all(connection, [version])[0]


def mark_all(connection: Connection, versions: Sequence[Version]) -> Sequence[Version]:
    """Adds revocations and sources to the messages of a list, and returns them."""
    fill_sources(connection, versions)
    found = revocations.taints(connection, [version.name for version in versions])
    for version in versions:
        messages = map(revocation_to_proto, found.get(version.name, ()))
        if isinstance(version, models_pb2.ModelVersion):
            version.taints.extend(messages)
        else:
            version.revocations.extend(messages)
    return versions
