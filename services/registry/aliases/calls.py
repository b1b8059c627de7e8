"""The methods of aliases."""
# ruff: noqa: ARG002 - gRPC gives every method a context; who calls is in services.grpckit.context instead

from services.grpckit.context import current
from services.grpckit.pages import cut
from services.registry.aliases import requests, store, wire
from services.registry.aliases.resources import AliasMove
from services.registry.calls import Calls, Context, page_of_request
from services.registry.library import now_us
from tuneforge.names import AliasName, ModelName
from tuneforge.v1 import aliases_pb2


class AliasCalls(Calls):
    """The methods of aliases."""

    async def GetAlias(self, request: aliases_pb2.GetAliasRequest, context: Context) -> aliases_pb2.Alias:
        """Returns an alias."""
        name = AliasName.parse(request.name)
        return wire.alias_to_proto(await self._database.read(lambda c: store.get_alias(c, name)))

    async def ListAliases(
        self, request: aliases_pb2.ListAliasesRequest, context: Context
    ) -> aliases_pb2.ListAliasesResponse:
        """Lists the aliases of a model."""
        name = ModelName.parse(request.parent)
        page = page_of_request(request)
        rows = await self._database.read(lambda c: store.list_aliases(c, name, page))
        entries, token = cut(rows, page, lambda row: row.name.alias)
        return aliases_pb2.ListAliasesResponse(aliases=map(wire.alias_to_proto, entries), next_page_token=token)

    async def SetAlias(self, request: aliases_pb2.SetAliasRequest, context: Context) -> aliases_pb2.Alias:
        """Moves an alias and logs the move."""
        name, version = requests.alias_and_version(request.name, request.version, request.reason)
        move = AliasMove(
            name=name,
            version=version,
            etag=request.etag,
            reason=request.reason,
            actor=current().actor,
            time_us=now_us(),
        )
        return await self._change(
            request,
            name.project,
            aliases_pb2.Alias,
            lambda connection: wire.alias_to_proto(store.set_alias(connection, move)),
        )

    async def ListAliasChanges(
        self, request: aliases_pb2.ListAliasChangesRequest, context: Context
    ) -> aliases_pb2.ListAliasChangesResponse:
        """Lists the moves of an alias."""
        name = AliasName.parse(request.parent)
        page = page_of_request(request)
        rows = await self._database.read(lambda c: store.list_alias_changes(c, name, page))
        entries, token = cut(rows, page, lambda row: str(row.sequence))
        changes = (wire.alias_change_to_proto(name, change) for change in entries)
        return aliases_pb2.ListAliasChangesResponse(changes=changes, next_page_token=token)
