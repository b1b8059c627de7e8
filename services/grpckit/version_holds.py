"""The registry as a keeper of holds on versions: what scheduler and inference both say to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any

import grpc

from services.grpckit.holding import Held
from services.grpckit.peers import call
from tuneforge.v1 import retention_pb2 as pb
from tuneforge.v1.registry_pb2_grpc import RegistryServiceStub

_PEER = "the registry"
_PAGE = 1000


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

    async def _owner(self) -> str:
        self._known_owner = self._known_owner or await self._read_owner()
        return self._known_owner

    async def hold(self, holder: str, names: Collection[str]) -> None:
        """Holds versions for a job or a deployment.

        Raises:
            ServiceError: NOT_FOUND: one is gone; PEER_UNAVAILABLE.
        """
        request = pb.HoldVersionsRequest(owner=await self._owner(), holder=holder, versions=sorted(set(names)))
        await call(self._stub.HoldVersions(request), peer=_PEER)

    async def release(self, holder: str, names: Collection[str]) -> None:
        """Takes holds back.

        Raises:
            ServiceError: PEER_UNAVAILABLE.
        """
        request = pb.ReleaseVersionsRequest(owner=await self._owner(), holder=holder, versions=sorted(set(names)))
        await call(self._stub.ReleaseVersions(request), peer=_PEER)

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
