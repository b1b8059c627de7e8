"""Aliases: names that point to versions of a model, and the log of where they pointed when."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from tuneforge import _short_names as names
from tuneforge._alias_watch import AliasWatch
from tuneforge._connections import Connections
from tuneforge._resumed_stream import WatchOptions
from tuneforge._transport import new_request_id
from tuneforge.alias_values import Alias, AliasChange, MoveKind, alias_from_proto, change_from_proto
from tuneforge.errors import InvalidArgument, Reason
from tuneforge.v1 import aliases_pb2 as pb
from tuneforge.v1 import models_pb2

__all__ = ["ABSENT", "Alias", "AliasChange", "AliasWatch", "Aliases", "MoveKind", "version_name"]

ABSENT = "absent"
"""`expected` of `set` for an alias that must not exist yet."""


_GATES_DEADLINE_S = 120.0
"""A move asks the gates of the alias, and a comparison draws thousands of resamples."""


class Aliases:
    """Aliases of the models of one project; `client.aliases`. Versions are `3`, `id/3`, `id@alias` or a whole name."""

    def __init__(self, connections: Connections, project: str) -> None:
        self._connections = connections
        self._project = project

    def get(self, model: str, alias: str, *, as_of: datetime | None = None) -> Alias:
        """Returns an alias of a model, as it is or as it was at a moment.

        Args:
            model: Id or name of the model.
            alias: Id of the alias.
            as_of: The moment, with a time zone; not in the future. What is answered for a moment never changes.

        Raises:
            NotFound: There is none, or was none then.
        """
        request = pb.GetAliasRequest(name=names.alias(self._project, model, alias), as_of=_moment(as_of))
        registry = self._connections.registry
        return alias_from_proto(registry.call(registry.stub.GetAlias, request))

    def list(self, model: str | None = None) -> Iterator[Alias]:
        """Yields the aliases of a model by id; without one those of the whole project, by model and id."""
        registry = self._connections.registry
        parent = names.parent(self._project) if model is None else names.model(self._project, model)
        request = pb.ListAliasesRequest(parent=parent)
        for page in registry.pages(registry.stub.ListAliases, request):
            yield from map(alias_from_proto, page.aliases)

    def set(
        self,
        model: str,
        alias: str,
        version: str | int,
        *,
        expected: str | Alias | None = None,
        reason: str = "",
        force: bool = False,
    ) -> Alias:
        """Moves an alias to a version, or makes it.

        Args:
            model: Id or name of the model.
            alias: Id of the alias, e.g. `production`.
            version: Number, `id/3`, `id@alias` or whole name of a version of the same model.
            expected: The alias as it was read (or its etag): the move happens only when nobody moved it since.
                `ABSENT`: it must not exist yet. None: whatever it is.
            reason: Why, for the log; at most 1024 characters. Required with `force`.
            force: Move it although gates are not passed; asks for the permission `aliases.admin`.

        Raises:
            Conflict: Somebody moved it since `expected` was read.
            GateFailed: Gates refuse it; `fields` says which and by how much.
        """
        request = pb.SetAliasRequest(
            name=names.alias(self._project, model, alias),
            version=version_name(self._connections, self._project, model, version),
            etag=_etag(expected),
            reason=reason,
            request_id=new_request_id(),
            force=force,
        )
        registry = self._connections.registry
        return alias_from_proto(registry.call(registry.stub.SetAlias, request, timeout_s=_GATES_DEADLINE_S))

    def rollback(
        self,
        model: str,
        alias: str,
        *,
        to_move: int = 0,
        expected: str | Alias | None = None,
        reason: str = "",
        force: bool = False,
    ) -> Alias:
        """Moves an alias back, which is a move of its own.

        Args:
            model: Id or name of the model.
            alias: Id of the alias.
            to_move: Number of the move whose version shall be back; 0: the one before, each time one further back.
            expected: As in `set`.
            reason: Why, for the log. Required with `force`.
            force: As in `set`.

        Raises:
            FailedPrecondition: It named nothing then.
            GateFailed: Gates of a policy that does not let rollbacks through refuse it.
        """
        request = pb.RollbackAliasRequest(
            name=names.alias(self._project, model, alias),
            sequence=to_move,
            etag=_etag(expected),
            reason=reason,
            request_id=new_request_id(),
            force=force,
        )
        registry = self._connections.registry
        return alias_from_proto(registry.call(registry.stub.RollbackAlias, request, timeout_s=_GATES_DEADLINE_S))

    def delete(self, model: str, alias: str, *, expected: str | Alias | None = None, reason: str = "") -> None:
        """Deletes an alias; its log stays, and a rollback takes the deletion back."""
        request = pb.DeleteAliasRequest(
            name=names.alias(self._project, model, alias),
            etag=_etag(expected),
            reason=reason,
            request_id=new_request_id(),
        )
        registry = self._connections.registry
        registry.call(registry.stub.DeleteAlias, request)

    def log(self, model: str, alias: str) -> Iterator[AliasChange]:
        """Yields the moves of an alias, newest first."""
        registry = self._connections.registry
        request = pb.ListAliasChangesRequest(parent=names.alias(self._project, model, alias))
        for page in registry.pages(registry.stub.ListAliasChanges, request):
            yield from map(change_from_proto, page.changes)

    def watch(
        self,
        model: str | None = None,
        *,
        cursor: str = "",
        options: WatchOptions | None = None,
        on_snapshot: Callable[[Sequence[Alias]], None] | None = None,
    ) -> AliasWatch:
        """Follows every move of the project's or of one model's aliases, also across restarts of the registry.

            with client.aliases.watch("router", on_snapshot=print) as moves:
                for move in moves:
                    print(move.name, move.to_version)

        Args:
            model: Id or name of a model; None: all of the project.
            cursor: `AliasWatch.cursor` of an earlier watch of the same; empty: from now on, after a snapshot.
            options: How patient it is.
            on_snapshot: Told the aliases as they are, part by part, before the first move.
        """
        parent = names.parent(self._project) if model is None else names.model(self._project, model)
        return AliasWatch(self._connections.registry, parent, on_snapshot, cursor=cursor, options=options)


def version_name(connections: Connections, project: str, model: str | None, version: str | int) -> str:
    """Returns the whole name of the version itself for a number, `id/3`, `id@alias`, `id` or a whole name."""
    text = str(version)
    if model is not None and text.isdigit():
        return f"{names.model(project, model)}/versions/{text}"
    name = names.model_version(project, text)
    if "/aliases/" in name or name.endswith("/versions/latest"):
        registry = connections.registry
        return registry.call(registry.stub.GetModelVersion, models_pb2.GetModelVersionRequest(name=name)).name
    return name


def _etag(expected: str | Alias | None) -> str:
    return expected.etag if isinstance(expected, Alias) else expected or ""


def _moment(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        message = f"as_of={moment.isoformat()} has no time zone"
        raise InvalidArgument(Reason.INVALID_FIELD, message, cure="Give a moment with one, such as 2026-01-31T12:00Z.")
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp
