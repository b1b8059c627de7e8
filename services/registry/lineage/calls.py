"""The methods of lineage and revocation."""
# ruff: noqa: ARG002 - gRPC gives every method a context; who calls is in services.grpckit.context instead

from sqlalchemy import Connection

from services.grpckit.context import current, require_project
from services.grpckit.pages import LARGEST_SIZE, cut, page_of
from services.registry.calls import Calls, Context, page_of_request
from services.registry.collections import get_collection
from services.registry.datasets.store import get_dataset_version
from services.registry.library import now_us
from services.registry.lineage import queries, revocations, wire
from services.registry.lineage.revocations import Revocation
from services.registry.lineage.sight import Sight, sight_of
from services.registry.lineage.store import numbers_of
from tuneforge.names import DatasetName, DatasetVersionName, ProjectName, project_of
from tuneforge.v1 import lineage_pb2 as pb


class LineageCalls(Calls):
    """The methods of lineage and revocation."""

    async def QueryLineage(self, request: pb.QueryLineageRequest, context: Context) -> pb.QueryLineageResponse:
        """Walks the graph from one thing."""
        question = wire.question_of_request(request)
        filters = f"{question.direction.value} {sorted(question.roles)} {sorted(question.kinds)} {question.max_depth}"
        page = page_of(request.page_size, request.page_token, scope=f"QueryLineage {request.name} {filters}")
        sight = sight_of(current().principal)
        found = await self._database.read(lambda c: queries.ask(c, question, page, sight))
        end = page.after_number(0) + len(found.nodes)
        # The last key is how far the walk has come: one entry more than the page tells that there is more.
        _, token = cut([*found.nodes, *([None] if found.has_more else [])], page, lambda _: str(end))
        return wire.found_to_proto(found, token)

    async def FindLineagePath(self, request: pb.FindLineagePathRequest, context: Context) -> pb.FindLineagePathResponse:
        """Finds a shortest way between two things."""
        require_project(project_of(request.other))
        sight = sight_of(current().principal)
        found = await self._database.read(lambda c: queries.path(c, request.name, request.other, sight))
        return pb.FindLineagePathResponse(
            nodes=map(wire.node_to_proto, found.nodes), edges=wire.edges_to_proto(found.edges)
        )

    async def ListAffectedAliases(
        self, request: pb.ListAffectedAliasesRequest, context: Context
    ) -> pb.ListAffectedAliasesResponse:
        """Lists the aliases that must move if a thing is revoked."""
        page = page_of(request.page_size, request.page_token, scope=f"ListAffectedAliases {request.name}")
        sight = sight_of(current().principal)
        rows = await self._database.read(lambda c: queries.affected_aliases(c, request.name, sight))
        rest = [row for row in rows if row.name > (page.after or "")][: page.size + 1]
        entries, token = cut(rest, page, lambda row: row.name)
        return pb.ListAffectedAliasesResponse(aliases=map(wire.affected_to_proto, entries), next_page_token=token)

    async def RevokeDataset(self, request: pb.RevokeDatasetRequest, context: Context) -> pb.RevokeDatasetResponse:
        """Revokes data, and lists what was made from it."""
        wire.check_reason(request.reason)
        name, sight = request.name, sight_of(current().principal)
        change = Revocation(name=name, is_revoked=True, actor=current().actor, reason=request.reason, time_us=now_us())

        def look(connection: Connection) -> pb.Revocation:
            _require_data(connection, name)
            return wire.revocation_to_proto(revocations.standing(connection).get(name, change))

        def revoke(connection: Connection) -> pb.Revocation:
            _require_data(connection, name)
            return wire.revocation_to_proto(revocations.add(connection, change))

        if request.validate_only:
            stands = await self._database.read(look)
        else:
            stands = await self._change(request, project_of(name), pb.Revocation, revoke)
        # Looked for after the write, which is short for it; what is published between the two is listed as well.
        return await self._database.read(lambda connection: _consequences(connection, stands, sight))

    async def UnrevokeDataset(self, request: pb.UnrevokeDatasetRequest, context: Context) -> pb.RevocationChange:
        """Takes a revocation back."""
        wire.check_reason(request.reason)
        change = Revocation(
            name=request.name, is_revoked=False, actor=current().actor, reason=request.reason, time_us=now_us()
        )

        def unrevoke(connection: Connection) -> pb.RevocationChange:
            _require_data(connection, request.name)
            return wire.change_to_proto(revocations.add(connection, change))

        return await self._change(request, project_of(request.name), pb.RevocationChange, unrevoke)

    async def ListRevocations(self, request: pb.ListRevocationsRequest, context: Context) -> pb.ListRevocationsResponse:
        """Lists the log of revocations."""
        if "/datasets/" not in request.parent:
            ProjectName.parse(request.parent)
        elif "/versions/" in request.parent:
            DatasetVersionName.parse(request.parent)
        else:
            DatasetName.parse(request.parent)
        page = page_of_request(request)
        rows = await self._database.read(lambda c: revocations.log(c, request.parent, page))
        entries, token = cut(rows, page, lambda row: str(row.sequence))
        return pb.ListRevocationsResponse(changes=map(wire.change_to_proto, entries), next_page_token=token)


def _require_data(connection: Connection, name: str) -> None:
    """Refuses a name that is not of data that there is.

    Raises:
        ServiceError: `NOT_FOUND`.
        InvalidName: It is neither a data set nor a version of one.
    """
    if "/versions/" in name:
        get_dataset_version(connection, DatasetVersionName.parse(name))
    else:
        get_collection(connection, DatasetName.parse(name))


def _consequences(connection: Connection, revocation: pb.Revocation, sight: Sight) -> pb.RevokeDatasetResponse:
    answer = pb.RevokeDatasetResponse(revocation=revocation)
    if not numbers_of(connection, revocation.name):  # a data set without versions
        return answer
    found, counts = queries.downstream(connection, revocation.name)
    answer.num_downstream.update(counts)
    shown = sorted(sight(connection, found))[:LARGEST_SIZE]
    nodes = queries.describe(connection, shown, dict.fromkeys(shown, 0))
    answer.downstream.extend(map(wire.node_to_proto, nodes))
    aliases = queries.affected_aliases(connection, revocation.name, sight)[:LARGEST_SIZE]
    answer.aliases.extend(map(wire.affected_to_proto, aliases))
    return answer
