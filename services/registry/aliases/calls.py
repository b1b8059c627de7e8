"""The methods of aliases."""
# ruff: noqa: ARG002 - gRPC gives every method a context; who calls is in services.grpckit.context instead

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection

from services.grpckit.auth import Policy, authorize
from services.grpckit.context import current
from services.grpckit.errors import FieldViolation, Reason, ServiceError, invalid_fields
from services.grpckit.pages import cut
from services.registry.aliases import log, requests, store, wire
from services.registry.aliases.resources import UNGATED, Alias, AliasChange, AliasMove, MoveKind, Verdict
from services.registry.aliases.watch import AliasFeed, WatchRequest, scope_of
from services.registry.calls import Context, page_of_request, size_bytes
from services.registry.gates import wire as gate_wire
from services.registry.gates.calls import GateCalls
from services.registry.gates.examination import StaleFacts, gate_failed, gather
from services.registry.gates.rules import Facts
from services.registry.library import Library, now_us
from tuneforge.names import AliasName
from tuneforge.v1 import aliases_pb2

_EXAMINATIONS = 5
"""How often a move is examined while what it rests on keeps changing."""
_FORCE = Policy("aliases.admin")
"""Who may move an alias against its gates."""


class AliasCalls(GateCalls):
    """The methods of aliases; a move asks the gates."""

    def __init__(self, library: Library) -> None:
        super().__init__(library)
        self._feed = AliasFeed(library.database)
        # Moments up to which somebody was told what an alias named: no later move may be put before them.
        self._told_us = 0

    def end_alias_watches(self) -> None:
        """Ends every watch, at the drain."""
        self._feed.drain()

    async def GetAlias(self, request: aliases_pb2.GetAliasRequest, context: Context) -> aliases_pb2.Alias:
        """Returns an alias, as it is or as it was."""
        name = AliasName.parse(request.name)
        if request.HasField("as_of"):
            change = await self._as_of(name, wire.microseconds(request.as_of))
            return wire.alias_to_proto(_as_it_was(name, change, request.as_of.ToJsonString()))
        answer = await self._read(request, lambda c: wire.alias_to_proto(store.get_alias(c, name)))
        return cast("aliases_pb2.Alias", answer)

    async def _as_of(self, name: AliasName, time_us: int) -> AliasChange | None:
        """Returns the newest move up to a moment; the answer is the same for ever after.

        A move that is being committed may have an earlier time than the moment that is asked for, so what is younger
        than the project's newest move is read in the order of the writes, and later moves are put behind it.
        """

        def read(connection: Connection) -> tuple[int, AliasChange | None]:
            return log.latest(connection, name.project)[1], log.as_of(connection, name, time_us)

        newest_us, change = await self._database.read(read)
        if time_us <= newest_us:
            return change
        if time_us > (now := now_us()):
            problem = f"is {(time_us - now) / 1e6:.3f} s in the future of the registry's clock; ask again then"
            raise invalid_fields([FieldViolation("as_of", problem)])

        def read_in_order(connection: Connection) -> AliasChange | None:
            self._told_us = max(self._told_us, time_us)
            return log.as_of(connection, name, time_us)

        return await self._database.write(read_in_order)

    def _clock(self) -> int:
        return max(now_us(), self._told_us + 1)

    async def ListAliases(
        self, request: aliases_pb2.ListAliasesRequest, context: Context
    ) -> aliases_pb2.ListAliasesResponse:
        """Lists the aliases of a model or of a project."""
        scope = scope_of(request.parent)
        page = page_of_request(request)
        rows = await self._database.read(lambda c: store.list_aliases(c, scope, page))
        entries, token = cut(rows, page, lambda row: f"{row.name.model}/{row.name.alias}")
        return aliases_pb2.ListAliasesResponse(aliases=map(wire.alias_to_proto, entries), next_page_token=token)

    async def SetAlias(self, request: aliases_pb2.SetAliasRequest, context: Context) -> aliases_pb2.Alias:
        """Moves an alias and logs the move."""
        is_forced = request.force
        name, version = requests.alias_and_version(request.name, request.version, request.reason, is_forced=is_forced)
        actor = current().actor
        move = AliasMove(name=name, version=version, etag=request.etag, reason=request.reason, actor=actor)
        return await self._gated(request, name, lambda _: move)

    async def RollbackAlias(self, request: aliases_pb2.RollbackAliasRequest, context: Context) -> aliases_pb2.Alias:
        """Moves an alias back to an earlier version."""
        name = requests.alias_and_reason(request.name, request.reason, is_forced=request.force)
        actor = current().actor

        def plan(connection: Connection) -> AliasMove:
            target = log.rollback_target(connection, name, request.sequence)
            return AliasMove(
                name=name,
                kind=MoveKind.ROLLBACK,
                version=target.to_version,
                restored_sequence=target.sequence,
                etag=request.etag,
                reason=request.reason,
                actor=actor,
            )

        return await self._gated(request, name, plan)

    async def DeleteAlias(self, request: aliases_pb2.DeleteAliasRequest, context: Context) -> aliases_pb2.Alias:
        """Deletes an alias and logs it as a move."""
        name = requests.alias_and_reason(request.name, request.reason)
        move = AliasMove(
            name=name,
            kind=MoveKind.DELETE,
            version=0,
            etag=request.etag,
            reason=request.reason,
            actor=current().actor,
        )
        return await self._move(request, name, lambda c: store.move_alias(c, move, self._clock))

    async def _gated(
        self,
        request: aliases_pb2.SetAliasRequest | aliases_pb2.RollbackAliasRequest,
        name: AliasName,
        plan: Callable[[Connection], AliasMove],
    ) -> aliases_pb2.Alias:
        """Makes a move that the gates let through, or one that is forced.

        The gates are asked before the transaction, since a comparison takes seconds; inside it, everything that they
        were asked about is read again, and when something has changed they are asked anew.
        """
        if request.force:
            authorize(current().principal, _FORCE)
        for _ in range(_EXAMINATIONS):
            prepared = await self._prepared(plan, is_forced=request.force)
            try:
                return await self._move(request, name, lambda c, done=prepared: done.make(c, plan, self._clock))  # type: ignore[misc]
            except StaleFacts:
                continue
        raise ServiceError(
            Reason.ETAG_MISMATCH,
            f"{name} and what its gates ask about changed {_EXAMINATIONS} times while it was examined",
            metadata={"name": str(name)},
        )

    async def _prepared(self, plan: Callable[[Connection], AliasMove], *, is_forced: bool) -> "_Prepared":
        def read(connection: Connection) -> tuple[AliasMove, Facts]:
            move = plan(connection)
            return move, gather(connection, move.name, move.version)

        try:
            move, facts = await self._database.read(read)
            if not facts.policies:
                return _Prepared(move=move, facts=facts)
            is_rollback = move.kind is MoveKind.ROLLBACK
            candidate = await self._examiner.candidate(move.name, move.version, move.actor, is_rollback=is_rollback)
            report = await self._examiner.examine(facts, candidate)
        except ServiceError as refusal:  # told in the transaction: a repeated request gets its first answer instead
            return _Prepared(refusal=refusal)
        message = gate_wire.report_to_proto(report).SerializeToString()
        if report.is_passed:
            return _Prepared(move=move, facts=facts, verdict=Verdict(report=message))
        if is_forced:
            return _Prepared(move=move, facts=facts, verdict=Verdict(is_forced=True, report=message))
        return _Prepared(move=move, facts=facts, refusal=gate_failed(report))

    async def _move(self, request: Any, name: AliasName, make: Callable[[Connection], Alias]) -> aliases_pb2.Alias:
        """Makes a move and wakes the watchers, also when the caller leaves while it is committed."""
        moving = asyncio.ensure_future(
            self._change(request, name.project, aliases_pb2.Alias, lambda c: wire.alias_to_proto(make(c)))
        )
        moving.add_done_callback(self._moved)
        return await asyncio.shield(moving)

    def _moved(self, moving: "asyncio.Future[aliases_pb2.Alias]") -> None:
        if not moving.cancelled() and moving.exception() is None:
            self._feed.wake()

    async def ListAliasChanges(
        self, request: aliases_pb2.ListAliasChangesRequest, context: Context
    ) -> aliases_pb2.ListAliasChangesResponse:
        """Lists the moves of an alias."""
        name = AliasName.parse(request.parent)
        page = page_of_request(request)
        rows = await self._database.read(lambda c: log.list_changes(c, name, page))
        messages = [wire.alias_change_to_proto(row) for row in rows]
        entries, token = cut(messages, page, lambda change: str(change.sequence), size_bytes=size_bytes)
        return aliases_pb2.ListAliasChangesResponse(changes=entries, next_page_token=token)

    async def WatchAliases(
        self, request: aliases_pb2.WatchAliasesRequest, context: Context
    ) -> AsyncIterator[aliases_pb2.WatchAliasesResponse]:
        """Streams the aliases as they are and every move from then on."""
        asked = WatchRequest(parent=request.parent, resume_token=request.resume_token, max_batch=request.max_batch)
        async with aclosing(self._feed.watch(asked)) as messages:
            async for message in messages:
                yield message


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """A move after the gates were asked."""

    move: AliasMove | None = None
    facts: Facts | None = None
    verdict: Verdict = UNGATED
    refusal: ServiceError | None = None

    def make(self, connection: Connection, plan: Callable[[Connection], AliasMove], clock: store.Clock) -> Alias:
        """Makes the move in the transaction, unless the gates refuse it.

        Raises:
            StaleFacts: Something has changed since the gates were asked.
            ServiceError: What refuses the move.
        """
        if self.move is None:
            raise self.refusal or RuntimeError("a move that was not planned was not refused")
        now = plan(connection)
        head = store.find_alias(connection, now.name)
        store.check_etag(now, head)
        is_there = head is not None and head.version == now.version
        if not is_there:
            if now != self.move or self._is_stale(gather(connection, now.name, now.version)):
                raise StaleFacts
            if self.refusal is not None:
                raise self.refusal
        return store.move_alias(connection, now, clock, self.verdict)

    def _is_stale(self, facts: Facts) -> bool:
        """Tells whether the gates have to be asked anew; where none is asked, it matters not who moved the alias."""
        is_asked = bool(facts.policies) or (self.facts is not None and bool(self.facts.policies))
        return is_asked and facts != self.facts


def _as_it_was(name: AliasName, change: AliasChange | None, moment: str) -> Alias:
    if change is None or not change.to_version:
        why = "there never was one until then" if change is None else f"move {change.sequence} had deleted it"
        raise ServiceError(
            Reason.NOT_FOUND,
            f"at {moment} there was no alias {str(name)!r}: {why}",
            metadata={"kind": "alias", "name": str(name), "as_of": moment},
        )
    return Alias(name=name, version=change.to_version, sequence=change.sequence, update_time_us=change.time_us)
