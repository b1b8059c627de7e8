"""Aliases and their moves to messages."""

from google.protobuf.timestamp_pb2 import Timestamp

from services.registry.aliases.resources import Alias, AliasChange
from services.registry.aliases.store import etag_of
from services.registry.wire import timestamp
from tuneforge.v1 import aliases_pb2, gates_pb2


def microseconds(moment: Timestamp) -> int:
    """Converts a moment to microseconds since 1970; what is finer is cut."""
    return moment.seconds * 1_000_000 + moment.nanos // 1000


def alias_to_proto(alias: Alias) -> aliases_pb2.Alias:
    """Converts an alias to its message."""
    return aliases_pb2.Alias(
        name=str(alias.name),
        version=str(alias.name.parent.version(alias.version)) if alias.version else "",
        etag=etag_of(alias),
        update_time=timestamp(alias.update_time_us),
        sequence=alias.sequence,
    )


def alias_change_to_proto(change: AliasChange) -> aliases_pb2.AliasChange:
    """Converts a move of an alias to its message."""
    model, verdict = change.name.parent, change.verdict
    return aliases_pb2.AliasChange(
        name=str(change.name),
        sequence=change.sequence,
        kind=aliases_pb2.AliasMoveKind.Value(f"ALIAS_MOVE_KIND_{change.kind}"),
        from_version=str(model.version(change.from_version)) if change.from_version else "",
        to_version=str(model.version(change.to_version)) if change.to_version else "",
        restored_sequence=change.restored_sequence,
        actor=change.actor,
        reason=change.reason,
        time=timestamp(change.time_us),
        is_forced=verdict.is_forced,
        gates=gates_pb2.GateReport.FromString(verdict.report) if verdict.report else None,
    )
