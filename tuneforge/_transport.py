"""How the SDK talks to a service: one channel per address, deadlines, retries, request ids, tokens and TLS.

`open_channel` makes a channel whose interceptor fills in what every call needs; `call` makes one unary call with
retries and turns every gRPC error into an exception of `tuneforge.errors`. Only errors after which nothing can have
gone wrong twice are retried: each changing call carries a request id, or is idempotent by its own key.

Default deadlines come from an interceptor, not from a service config: gRPC's `methodConfig.timeout` fires early on the
client and never reaches the server.
"""

import random
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc

from tuneforge._several import SeveralChannels
from tuneforge.addresses import is_loopback, split_address, split_addresses
from tuneforge.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    Reason,
    TuneforgeError,
    Unavailable,
    from_rpc_error,
)

Request = TypeVar("Request")
Response = TypeVar("Response")

REQUEST_ID_HEADER = "x-request-id"
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Largest answer that is taken: an architecture with all tensor shapes is the largest one, about 2 MB."""

_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Finds a peer that vanished without a word (a pulled cable) within 40 seconds.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # gRPC waits up to two minutes between connection attempts otherwise: a restarted service would seem dead.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Retries are ours (`call`): they know what is idempotent, and they honour RetryInfo.
    ("grpc.enable_retries", 0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportSettings:
    """What every channel of a client has in common."""

    token: str | None = None
    """Bearer token sent with each call; None sends none."""
    ca: Path | None = None
    """PEM file of the authority that signed the services' certificates; None speaks plain text."""
    deadline_s: float = 30.0
    """Deadline of a unary call that names none, in seconds, > 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Back-off between tries: each wait is drawn from [half, whole] of a delay that doubles."""

    initial_s: float = 0.1
    """First delay in seconds, > 0."""
    max_s: float = 2.0
    """Largest delay in seconds."""
    budget_s: float = 8.0
    """Time after which an error is given to the caller, counted from the last progress; `inf` never gives up."""

    def delays(self) -> Iterator[float]:
        """Yields the delays without end; the budget is the caller's to watch."""
        delay_s = self.initial_s
        while True:
            yield delay_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter against thundering herds, not a secret
            delay_s = min(delay_s * 2, self.max_s)


DEFAULT_RETRY = RetryPolicy()


class Backoff:
    """Waits between the tries of one call, and gives up when the policy's budget is spent.

    `progress` starts the budget and the delays anew: a long transfer may be broken off as often as it moves forward.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self.progress()

    def progress(self) -> None:
        """Forgets the tries so far."""
        self._delays = self._policy.delays()
        self._give_up_at = time.monotonic() + self._policy.budget_s

    def wait_or_raise(self, error: TuneforgeError) -> None:
        """Waits before the next try.

        Args:
            error: What the last try ended with; its `retry_after_s` is the least wait.

        Raises:
            TuneforgeError: `error`, when the budget does not allow another try.
        """
        delay_s = max(next(self._delays), error.retry_after_s or 0.0)
        if time.monotonic() + delay_s > self._give_up_at:
            raise error
        time.sleep(delay_s)


def new_request_id() -> str:
    """Returns a fresh id that makes a repeated call safe."""
    return str(uuid.uuid4())


def is_retriable(error: grpc.RpcError) -> bool:
    """Returns whether the same call may succeed a moment later.

    UNAVAILABLE is, and RESOURCE_EXHAUSTED when too many calls are open; a full disk or node is not.
    """
    code = error.code() if isinstance(error, grpc.Call) else None
    if code is grpc.StatusCode.UNAVAILABLE:
        return True
    return code is grpc.StatusCode.RESOURCE_EXHAUSTED and from_rpc_error(error).reason == Reason.TOO_MANY_CALLS


def typed_error(error: grpc.RpcError, peer: str) -> TuneforgeError:
    """Returns the exception for an error of a call, in words that name the peer when nobody answered there."""
    typed = from_rpc_error(error)
    if typed.request_id or typed.metadata:  # a service answered, and has said it better
        return typed
    if isinstance(typed, Unavailable):
        cause = "the connection was refused" if "Connection refused" in typed.message else typed.message[:300]
        return Unavailable(Reason.PEER_UNAVAILABLE, f"{peer} does not answer: {cause}")
    if isinstance(typed, DeadlineExceeded):
        return DeadlineExceeded(Reason.DEADLINE_EXCEEDED, f"{peer} did not answer in time")
    if typed.reason == "UNIMPLEMENTED":
        message = f"{peer} is another service, or of an older release: it does not know this method"
        return FailedPrecondition(typed.reason, message, cure="Check the addresses: each service has its own.")
    return typed


def call(
    method: "grpc.UnaryUnaryMultiCallable[Request, Response]",
    request: Request,
    *,
    timeout_s: float | None = None,
    retry: RetryPolicy = DEFAULT_RETRY,
    peer: str = "the service",
) -> Response:
    """Makes one unary call, again after errors that pass.

    Args:
        method: A method of a generated stub.
        request: Its request; a changing one carries its `request_id`.
        timeout_s: Deadline of each try in seconds; None takes the channel's default.
        retry: How to go on after UNAVAILABLE.
        peer: Who is called, for people: `the scheduler at 127.0.0.1:7102`.

    Raises:
        TuneforgeError: A typed exception for whatever the service answered at last.
    """
    backoff = Backoff(retry)
    metadata = ((REQUEST_ID_HEADER, new_request_id()),)
    while True:
        try:
            return method(request, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            typed = typed_error(error, peer)
            if not is_retriable(error):
                raise typed from None
        backoff.wait_or_raise(typed)


def open_channel(address: str, settings: TransportSettings | None = None) -> grpc.Channel:
    """Opens a channel to a service; it connects at the first call.

    Args:
        address: `host:port`, or several of them with commas between, of which the one that answers is called.
        settings: Token, authority and default deadline.

    Raises:
        InvalidArgument: The address is malformed, the authority's file cannot be read, or a token would travel
            unencrypted to another machine.
    """
    settings = settings or TransportSettings()
    try:
        addresses = split_addresses(address)
    except ValueError as error:
        cure = "Give e.g. 127.0.0.1:7102, or several with commas between."
        raise InvalidArgument(Reason.INVALID_FIELD, f"the address is wrong: {error}", cure=cure) from None
    channels = [_open_one(each, settings) for each in addresses]
    return channels[0] if len(channels) == 1 else SeveralChannels(channels)


def _open_one(address: str, settings: TransportSettings) -> grpc.Channel:
    if settings.ca is None:
        host, _ = split_address(address) or ("", 0)
        if settings.token and not is_loopback(host):
            raise InvalidArgument(
                Reason.INVALID_FIELD,
                f"the token would travel unencrypted to {address}",
                cure="Give the services' certificate authority (ca=..., --ca or TUNEFORGE_TLS_CA).",
            )
        channel = grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)
    else:
        channel = grpc.secure_channel(address, _credentials(settings.ca), options=_CHANNEL_OPTIONS)
    return grpc.intercept_channel(channel, CallDefaults(settings))


def _credentials(ca: Path) -> grpc.ChannelCredentials:
    try:
        return grpc.ssl_channel_credentials(root_certificates=ca.read_bytes())
    except OSError as error:
        raise InvalidArgument(
            Reason.INVALID_FIELD,
            f"the certificate authority {str(ca)!r} cannot be read: {error.strerror}",
            cure="Give a readable PEM file.",
        ) from None


@dataclass(frozen=True)
class _Details(grpc.ClientCallDetails):
    """Call details with what `CallDefaults` fills in."""

    method: str
    timeout: float | None
    metadata: tuple[tuple[str, str | bytes], ...] | None
    credentials: grpc.CallCredentials | None = None
    wait_for_ready: bool | None = None
    compression: Any = None


class CallDefaults(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
):
    """Gives each call a request id and the token, and each unary call a deadline.

    Streams get no deadline of their own: a watch lasts as long as its job, and keep-alive finds a dead peer.
    """

    def __init__(self, settings: TransportSettings) -> None:
        self._deadline_s = settings.deadline_s
        self._authorization = (("authorization", f"Bearer {settings.token}"),) if settings.token else ()

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        """Fills in the deadline, the request id and the token."""
        return continuation(self._complete(details, details.timeout or self._deadline_s), request)

    def intercept_unary_stream(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        """Fills in the request id and the token."""
        return continuation(self._complete(details, details.timeout), request)

    def intercept_stream_unary(self, continuation: Callable[..., Any], details: Any, request_iterator: Any) -> Any:
        """Fills in the request id and the token."""
        return continuation(self._complete(details, details.timeout), request_iterator)

    def _complete(self, details: Any, timeout_s: float | None) -> _Details:
        metadata = tuple(details.metadata or ())
        if not any(key == REQUEST_ID_HEADER for key, _ in metadata):
            metadata += ((REQUEST_ID_HEADER, new_request_id()),)
        return _Details(
            method=details.method,
            timeout=timeout_s,
            metadata=metadata + self._authorization,
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
            compression=details.compression,
        )
