"""Aliases and their moves to messages."""

from services.registry.aliases.resources import Alias, AliasChange
from services.registry.aliases.store import etag_of
from services.registry.wire import timestamp
from tuneforge.names import AliasName
from tuneforge.v1 import aliases_pb2


def alias_to_proto(alias: Alias) -> aliases_pb2.Alias:
    """Converts an alias to its message."""
    return aliases_pb2.Alias(
        name=str(alias.name),
        version=str(alias.name.parent.version(alias.version)),
        etag=etag_of(alias),
        update_time=timestamp(alias.update_time_us),
    )


def alias_change_to_proto(name: AliasName, change: AliasChange) -> aliases_pb2.AliasChange:
    """Converts a move of an alias to its message."""
    return aliases_pb2.AliasChange(
        sequence=change.sequence,
        from_version=str(name.parent.version(change.from_version)) if change.from_version else "",
        to_version=str(name.parent.version(change.to_version)),
        actor=change.actor,
        reason=change.reason,
        time=timestamp(change.time_us),
    )
