"""The registry as a keeper of holds on versions: what scheduler and inference both say to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from services.grpckit import context
from services.grpckit.errors import Reason, ServiceError
from services.grpckit.holding import Held
from services.grpckit.peers import call
from tuneforge.v1 import retention_pb2 as pb
from tuneforge.v1.registry_pb2_grpc import RegistryServiceStub

_PEER = "the registry"
_PAGE = 1000
_MOST_TOGETHER = 200
"""Holders of one call; the registry takes 256."""
_LONGEST_REST_S = 0.01
"""After a call there is a rest as long as it took, 10 ms at most, in which more come that share the next one."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A hold that somebody waits for."""

    holder: str
    versions: list[str]
    done: asyncio.Future[None]


def _settle(wanted: _Wanted, error: BaseException | None) -> None:
    if wanted.done.done():  # who waited has left
        return
    if error is None:
        wanted.done.set_result(None)
    elif isinstance(error, Exception):
        wanted.done.set_exception(error)
    else:
        wanted.done.cancel()


class VersionHolds:
    """The holds of one service at the registry; see `services/grpckit/holding.py`.

    Args:
        channel: To the registry.
        owner: Gives the name by which the registry knows this service's holds; see `services/grpckit/identity.py`.
    """

    def __init__(self, channel: grpc.aio.Channel, owner: Callable[[], Awaitable[str]]) -> None:
        self._stub: Any = RegistryServiceStub(channel)
        self._read_owner = owner
        self._known_owner = ""
        self._waiting: list[_Wanted] = []
        self._asking: asyncio.Task[None] | None = None

    async def _owner(self) -> str:
        self._known_owner = self._known_owner or await self._read_owner()
        return self._known_owner

    async def hold(self, holder: str, names: Collection[str]) -> None:
        """Holds versions for a job or a deployment, in one call with all others that are asked for meanwhile.

        Raises:
            ServiceError: NOT_FOUND: one is gone; PEER_UNAVAILABLE.
        """
        wanted = _Wanted(holder, sorted(set(names)), asyncio.get_running_loop().create_future())
        self._waiting.append(wanted)
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_all())
        await wanted.done

    async def _ask_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.sleep(0)  # those that were asked for in the same moment are all here after it
            with context.background("holds"):
                while self._waiting:
                    batch, self._waiting = self._waiting[:_MOST_TOGETHER], self._waiting[_MOST_TOGETHER:]
                    began = loop.time()
                    await self._ask(batch)
                    await asyncio.sleep(min(_LONGEST_REST_S, loop.time() - began))
        finally:
            self._asking = None
            for wanted in self._waiting:  # only where this task was cancelled
                wanted.done.cancel()

    async def _ask(self, batch: Sequence[_Wanted]) -> None:
        first, *others = batch
        request = pb.HoldVersionsRequest(
            holder=first.holder,
            versions=first.versions,
            others=[pb.HolderVersions(holder=each.holder, versions=each.versions) for each in others],
        )
        try:
            request.owner = await self._owner()
            answer = await call(self._stub.HoldVersions(request), peer=_PEER)
        except BaseException as error:
            if others and isinstance(error, ServiceError) and error.reason != Reason.PEER_UNAVAILABLE:
                half = len(batch) // 2  # one of them is refused, and the others are not to hear of it
                await self._ask(batch[:half])
                await self._ask(batch[half:])
                return
            for each in batch:
                _settle(each, error)
            if not isinstance(error, Exception):
                raise
            return
        _settle(first, None)
        if others and answer.num_holders == 0:  # an older registry has overlooked them
            for each in others:
                await self._ask([each])
            return
        for each in others:
            _settle(each, None)

    async def release(self, held: Mapping[str, Collection[str]]) -> None:
        """Takes holds back, those of many holders in one call.

        Raises:
            ServiceError: PEER_UNAVAILABLE; or a refusal, then all others were taken back.
        """
        given = [pb.HolderVersions(holder=holder, versions=sorted(set(names))) for holder, names in held.items()]
        if given:
            await self._release(given)

    async def _release_halves(self, given: Sequence[pb.HolderVersions]) -> None:
        half = len(given) // 2
        try:
            await self._release(given[:half])
        except ServiceError as error:
            if error.reason != Reason.PEER_UNAVAILABLE:
                await self._release(given[half:])
            raise
        await self._release(given[half:])

    async def _release(self, given: Sequence[pb.HolderVersions]) -> None:
        if len(given) > _MOST_TOGETHER:
            await self._release_halves(given)
            return
        first, *others = given
        request = pb.ReleaseVersionsRequest(
            owner=await self._owner(), holder=first.holder, versions=first.versions, others=others
        )
        try:
            answer = await call(self._stub.ReleaseVersions(request), peer=_PEER)
        except ServiceError as error:
            if not others or error.reason == Reason.PEER_UNAVAILABLE:
                raise
            await self._release_halves(given)  # one of them is refused, and the others are to go
            return
        if others and answer.num_holders == 0:  # an older registry has overlooked them
            for each in others:
                await self._release([each])

    async def held(self) -> Held:
        """Returns all that this service holds.

        Raises:
            ServiceError: PEER_UNAVAILABLE.
        """
        request = pb.ListHoldsRequest(owner=await self._owner(), page_size=_PAGE)
        found: set[tuple[str, str]] = set()
        while True:
            page: pb.ListHoldsResponse = await call(self._stub.ListHolds(request), peer=_PEER)
            found.update((hold.holder, hold.version) for hold in page.holds)
            if not page.next_page_token:
                return frozenset(found)
            request.page_token = page.next_page_token
