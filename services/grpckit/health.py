"""`grpc.health.v1`: SERVING from the end of the start to the beginning of the drain.

The empty name is the process; a service's own name is NOT_SERVING also while the process stands by for another one, so
that whoever looks for somebody who answers asks for that name.

The library's own servicer keeps its Watch streams open while the server stops, and so delays the stop by its whole
grace; this one tells NOT_SERVING and ends them.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.grpckit.errors import ServiceError, not_found

_Status = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):
    """Health of the process (the empty name) and of each of its services.

    Args:
        services: Full names of the services.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset({"", *services})
        self._serving: frozenset[str] = frozenset()
        self._is_over = False
        self._changed = asyncio.Event()

    def set_alive(self) -> None:
        """Says SERVING of the process alone from now on."""
        self._change(frozenset({""}))

    def set_serving(self) -> None:
        """Says SERVING from now on, unless it has ended."""
        if not self._is_over:
            self._change(self._services)

    def end(self) -> None:
        """Says NOT_SERVING from now on, and ends the streams that have told it."""
        self._is_over = True
        self._change(frozenset())

    def _change(self, serving: frozenset[str]) -> None:
        self._serving = serving
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(
        self,
        request: health_pb2.HealthCheckRequest,
        context: Any,  # noqa: ARG002 - gRPC passes it
    ) -> health_pb2.HealthCheckResponse:
        """Answers the state of a service.

        Raises:
            ServiceError: NOT_FOUND, as the protocol asks for an unknown service.
        """
        if request.service not in self._services:
            raise self._unknown(request.service)
        return self._status(request.service)

    async def List(
        self,
        request: health_pb2.HealthListRequest,  # noqa: ARG002 - it is empty
        context: Any,  # noqa: ARG002 - gRPC passes it
    ) -> health_pb2.HealthListResponse:
        """Answers the state of every service."""
        return health_pb2.HealthListResponse(statuses={name: self._status(name) for name in self._services})

    async def Watch(
        self,
        request: health_pb2.HealthCheckRequest,
        context: Any,  # noqa: ARG002 - gRPC passes it
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Streams the state of a service: now, and at each change."""
        is_known = request.service in self._services
        while True:
            changed = self._changed  # taken before the state is read, or a change in between would be missed
            yield self._status(request.service) if is_known else _Status(status=_Status.SERVICE_UNKNOWN)
            if self._is_over:
                return
            await changed.wait()

    def _status(self, service: str) -> health_pb2.HealthCheckResponse:
        return _Status(status=_Status.SERVING if service in self._serving else _Status.NOT_SERVING)

    def _unknown(self, service: str) -> ServiceError:
        return not_found("service", service)
