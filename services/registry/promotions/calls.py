"""The methods of promotions."""
# ruff: noqa: ARG002 - gRPC gives every method a context; who calls is in services.grpckit.context instead

import asyncio
from collections.abc import Callable, Iterator

from sqlalchemy import Connection

from services.grpckit.context import current
from services.grpckit.errors import FieldViolation, invalid_fields
from services.grpckit.pages import cut, page_of
from services.registry.calls import Calls, Context
from services.registry.gates.requests import reason_violations
from services.registry.library import now_us
from services.registry.manifests import listed
from services.registry.models.store import get_model_version
from services.registry.promotions import rules, store, wire
from services.registry.promotions.promoter import Promoter
from services.registry.promotions.resources import Promotion
from tuneforge.names import ModelVersionName, ProjectName, PromotionName
from tuneforge.promotion_paths import MOST_PATTERNS, path_problem, pattern_problem
from tuneforge.v1 import promotions_pb2 as pb


class PromotionCalls(Calls):
    """The methods of promotions."""

    promoter: Promoter
    """Set before the first call."""

    async def PromoteVersion(self, request: pb.PromoteVersionRequest, context: Context) -> pb.Promotion:
        """Begins to copy a version to the deploy location."""
        version = ModelVersionName.parse(request.name)
        if violations := list(_violations(request)):
            raise invalid_fields(listed(violations))
        wish = rules.PromotionWish(
            version=version,
            path=request.path,
            patterns=tuple(dict.fromkeys(request.patterns)),
            actor=current().actor,
            time_us=now_us(),
        )

        def promote(connection: Connection) -> Promotion:
            self.promoter.location_for(version)
            promotion, is_new = rules.begin(connection, wish)
            return store.change(connection, promotion, reason=request.reason) if is_new else promotion

        return await self._begin(request, version, promote)

    async def UnpromoteVersion(self, request: pb.UnpromoteVersionRequest, context: Context) -> pb.Promotion:
        """Begins to remove the copy of a version."""
        version = ModelVersionName.parse(request.name)
        if violations := list(reason_violations(request.reason, "reason")):
            raise invalid_fields(violations)
        actor, time_us = current().actor, now_us()

        def unpromote(connection: Connection) -> Promotion:
            self.promoter.location_for(version)
            promotion = rules.begin_removal(connection, version, actor, time_us)
            return store.change(connection, promotion, reason=request.reason)

        return await self._begin(request, version, unpromote)

    async def _begin(
        self,
        request: pb.PromoteVersionRequest | pb.UnpromoteVersionRequest,
        version: ModelVersionName,
        change: Callable[[Connection], Promotion],
    ) -> pb.Promotion:
        def make(connection: Connection) -> pb.Promotion:
            return wire.promotion_to_proto(change(connection), store.list_changes(connection, version))

        changing = asyncio.ensure_future(self._change(request, version.project, pb.Promotion, make))

        def submit(done: "asyncio.Future[pb.Promotion]") -> None:
            if not done.cancelled() and done.exception() is None:
                self.promoter.submit(version)

        changing.add_done_callback(submit)
        return await asyncio.shield(changing)  # the work begins also when the caller leaves during the commit

    async def GetPromotion(self, request: pb.GetPromotionRequest, context: Context) -> pb.Promotion:
        """Returns how it stands with the promotion of a version."""
        version = PromotionName.parse(request.name).parent

        def read(connection: Connection) -> pb.Promotion:
            promotion = store.find_promotion(connection, version)
            if promotion is None:
                get_model_version(connection, version)
                return wire.never_promoted(version)
            return wire.promotion_to_proto(promotion, store.list_changes(connection, version))

        return await self._database.read(read)

    async def ListPromotions(self, request: pb.ListPromotionsRequest, context: Context) -> pb.ListPromotionsResponse:
        """Lists the promotions of a project."""
        project = ProjectName.parse(request.parent).project
        states = wire.states_of(request.states)
        scope = f"ListPromotions {request.parent} {','.join(states)}"
        page = page_of(request.page_size, request.page_token, scope=scope)
        rows = await self._database.read(lambda c: store.list_promotions(c, project, states, page))
        entries, token = cut(rows, page, lambda row: f"{row.version.model}/{row.version.version}")
        return pb.ListPromotionsResponse(promotions=map(wire.promotion_to_proto, entries), next_page_token=token)


def _violations(request: pb.PromoteVersionRequest) -> Iterator[FieldViolation]:
    if problem := path_problem(request.path):
        yield FieldViolation("path", problem)
    if len(request.patterns) > MOST_PATTERNS:
        yield FieldViolation("patterns", f"has {len(request.patterns)} entries; at most {MOST_PATTERNS} are taken")
    for number, pattern in enumerate(request.patterns[:MOST_PATTERNS]):
        if problem := pattern_problem(pattern):
            yield FieldViolation(f"patterns[{number}]", problem)
    yield from reason_violations(request.reason, "reason")
