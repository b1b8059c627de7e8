"""Calls from one service to another: deadline, request id, end user and token travel along by themselves.

    channel = open_channel(settings.registry_address, settings.server.peers)
    registry = RegistryServiceStub(channel)
    model = await call(registry.GetModel(GetModelRequest(name=name)), peer="registry")

The channel adds what belongs to the call that runs (`context.current()`), so a stub is made once and used everywhere.
Streams get no deadline of their own; those of a loop run under `context.background`.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

import grpc

from services.grpckit.context import ON_BEHALF_OF_HEADER, REQUEST_ID_HEADER, current_or_none, new_request_id
from services.grpckit.errors import Reason, ServiceError
from services.grpckit.folder_lock import StartRefused
from services.grpckit.settings import PeerSettings
from services.grpckit.status import from_peer
from tuneforge.addresses import is_loopback, split_address

Response = TypeVar("Response")

_MARGIN_S = 0.05  # left of the caller's deadline for our own answer
_MIN_TIMEOUT_S = 0.001


def open_channel(address: str, settings: PeerSettings | None = None) -> grpc.aio.Channel:
    """Opens a channel to another service; it connects at the first call. Made inside the running event loop.

    Args:
        address: `host:port`.
        settings: Token, authority and time limit.

    Raises:
        StartRefused: The address is malformed, the authority's file cannot be read, or a token would travel unencrypted
            to another machine.
    """
    settings = settings or PeerSettings()
    parts = split_address(address)
    if parts is None or parts[1] == 0:
        raise StartRefused(f"the address {address!r} of a peer is not of the form host:port")
    options = _options(settings)
    if settings.tls_ca is None:
        if settings.token and not is_loopback(parts[0]):
            raise StartRefused(f"the token would travel unencrypted to {address}: set TUNEFORGE_TLS_CA")
        return _PeerChannel(grpc.aio.insecure_channel(address, options=options), settings)
    try:
        credentials = grpc.ssl_channel_credentials(root_certificates=settings.tls_ca.read_bytes())
    except OSError as error:
        raise StartRefused(f"the authority {settings.tls_ca} cannot be read: {error.strerror}") from None
    return _PeerChannel(grpc.aio.secure_channel(address, credentials, options=options), settings)


async def call(answer: Awaitable[Response], *, peer: str = "another service") -> Response:
    """Waits for the answer of a unary (or client-streaming) call.

    Args:
        answer: What the stub returned.
        peer: Who is called, for the message.

    Raises:
        ServiceError: What the peer said, or PEER_UNAVAILABLE when it said nothing in time.
    """
    try:
        return await answer
    except grpc.RpcError as error:
        raise _answered(error, peer) from None


async def messages(stream: Any, *, peer: str = "another service") -> AsyncGenerator[Any, None]:
    """Yields the messages of a stream, and cancels it when the reader leaves.

    Args:
        stream: What the stub returned for a server-streaming or bidirectional method.
        peer: Who is called, for the message.

    Raises:
        ServiceError: What the peer said, or PEER_UNAVAILABLE when the connection broke.
    """
    try:
        async for message in stream:
            yield message
    except grpc.RpcError as error:
        raise _answered(error, peer) from None
    finally:
        stream.cancel()


def _answered(error: grpc.RpcError, peer: str) -> ServiceError:
    context = current_or_none()
    remaining = context.remaining_s() if context else None
    if remaining is not None and remaining <= _MARGIN_S:
        return ServiceError(Reason.DEADLINE_EXCEEDED, f"the deadline passed while {peer} was asked")
    return from_peer(error, peer=peer)


def _options(settings: PeerSettings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        # Finds a peer that vanished without a word within 40 s.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # gRPC waits up to two minutes between connection attempts otherwise: a restarted peer would seem dead.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # Retries are the caller's, who knows what is idempotent.
        ("grpc.enable_retries", 0),
    ]


class _Method:
    """A multi-callable that fills in what each call carries.

    gRPC's aio interceptors could do it too, but they put a task and a queue under every stream, in which cancellation
    gets lost.
    """

    def __init__(self, inner: Callable[..., Any], settings: PeerSettings, *, is_unary: bool) -> None:
        self._inner = inner
        self._is_unary = is_unary
        self._timeout_s = settings.timeout_s
        self._authorization = (("authorization", f"Bearer {settings.token}"),) if settings.token else ()

    def __call__(self, *args: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        context = current_or_none()
        given = tuple(metadata or ())
        carried: tuple[tuple[str, str], ...] = self._authorization
        if not any(key == REQUEST_ID_HEADER for key, _ in given):
            carried += ((REQUEST_ID_HEADER, context.request_id if context else new_request_id()),)
        # Work of the service's own is done in its own name; whoever calls without a token is `local` everywhere.
        is_own = context is None or (context.principal.is_service and context.actor == context.principal.name)
        if context and not is_own and not any(key == ON_BEHALF_OF_HEADER for key, _ in given):
            carried += ((ON_BEHALF_OF_HEADER, context.actor),)
        if timeout is None and self._is_unary:
            timeout = self._timeout_s
        remaining = context.remaining_s() if context else None
        if remaining is not None:
            left = max(remaining - _MARGIN_S, _MIN_TIMEOUT_S)
            timeout = left if timeout is None else min(timeout, left)
        return self._inner(*args, timeout=timeout, metadata=given + carried, **options)


class _PeerChannel(grpc.aio.Channel):
    """A channel whose methods carry the running call's context."""

    def __init__(self, inner: grpc.aio.Channel, settings: PeerSettings) -> None:
        self._channel = inner
        self._settings = settings

    def unary_unary(self, *args: Any, **options: Any) -> Any:
        return _Method(self._channel.unary_unary(*args, **options), self._settings, is_unary=True)

    def unary_stream(self, *args: Any, **options: Any) -> Any:
        return _Method(self._channel.unary_stream(*args, **options), self._settings, is_unary=False)

    def stream_unary(self, *args: Any, **options: Any) -> Any:
        return _Method(self._channel.stream_unary(*args, **options), self._settings, is_unary=False)

    def stream_stream(self, *args: Any, **options: Any) -> Any:
        return _Method(self._channel.stream_stream(*args, **options), self._settings, is_unary=False)

    async def __aenter__(self) -> "_PeerChannel":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._channel.channel_ready()
