"""Aliases: names that point to versions of a model, and the log of where they pointed when."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from tuneforge import _short_names as names
from tuneforge import _wire
from tuneforge._connections import Connections
from tuneforge._transport import new_request_id
from tuneforge.v1 import aliases_pb2 as pb
from tuneforge.v1 import models_pb2

ABSENT = "absent"
"""`expected` of `set` for an alias that must not exist yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A name that points to one version of a model and can be moved."""

    name: str
    """`projects/{project}/models/{model}/aliases/{alias}`."""
    version: str
    """The version it points to."""
    etag: str
    """Changes with each move."""
    update_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasChange:
    """One move of an alias."""

    sequence: int
    """Number of the move, from 1."""
    from_version: str | None
    """None for the first move."""
    to_version: str
    actor: str
    """Who moved it."""
    reason: str
    """Why, in the words of who moved it."""
    time: datetime


class Aliases:
    """Aliases of the models of one project; `client.aliases`. Versions are `3`, `id/3`, `id@alias` or a whole name."""

    def __init__(self, connections: Connections, project: str) -> None:
        self._connections = connections
        self._project = project

    def get(self, model: str, alias: str) -> Alias:
        """Returns an alias of a model."""
        registry = self._connections.registry
        request = pb.GetAliasRequest(name=names.alias(self._project, model, alias))
        return _alias(registry.call(registry.stub.GetAlias, request))

    def list(self, model: str) -> Iterator[Alias]:
        """Yields the aliases of a model by id."""
        registry = self._connections.registry
        request = pb.ListAliasesRequest(parent=names.model(self._project, model))
        for page in registry.pages(registry.stub.ListAliases, request):
            yield from map(_alias, page.aliases)

    def set(
        self, model: str, alias: str, version: str | int, *, expected: str | Alias | None = None, reason: str = ""
    ) -> Alias:
        """Moves an alias to a version, or makes it.

        Args:
            model: Id or name of the model.
            alias: Id of the alias, e.g. `production`.
            version: Number, `id/3`, `id@alias` or whole name of a version of the same model.
            expected: The alias as it was read (or its etag): the move happens only when nobody moved it since.
                `ABSENT`: it must not exist yet. None: whatever it is.
            reason: Why, for the log; at most 1024 characters.

        Raises:
            Conflict: Somebody moved it since `expected` was read.
        """
        request = pb.SetAliasRequest(
            name=names.alias(self._project, model, alias),
            version=self._version_of(names.model(self._project, model), str(version)),
            etag=expected.etag if isinstance(expected, Alias) else expected or "",
            reason=reason,
            request_id=new_request_id(),
        )
        registry = self._connections.registry
        return _alias(registry.call(registry.stub.SetAlias, request))

    def log(self, model: str, alias: str) -> Iterator[AliasChange]:
        """Yields the moves of an alias, newest first."""
        registry = self._connections.registry
        request = pb.ListAliasChangesRequest(parent=names.alias(self._project, model, alias))
        for page in registry.pages(registry.stub.ListAliasChanges, request):
            yield from map(_alias_change, page.changes)

    def _version_of(self, model: str, version: str) -> str:
        """Returns the name of the version itself for a number, an alias or a name."""
        if version.isdigit():
            return f"{model}/versions/{version}"
        name = names.model_version(self._project, version)
        if "/aliases/" in name or name.endswith("/versions/latest"):
            registry = self._connections.registry
            request = models_pb2.GetModelVersionRequest(name=name)
            return registry.call(registry.stub.GetModelVersion, request).name
        return name


def _alias(message: pb.Alias) -> Alias:
    return Alias(
        name=message.name,
        version=message.version,
        etag=message.etag,
        update_time=_wire.instant(message.update_time),
    )


def _alias_change(message: pb.AliasChange) -> AliasChange:
    return AliasChange(
        sequence=message.sequence,
        from_version=message.from_version or None,
        to_version=message.to_version,
        actor=message.actor,
        reason=message.reason,
        time=_wire.instant(message.time),
    )
