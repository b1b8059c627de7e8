"""One running call: what it passes before its handler, and what is told when it has ended.

From the outside in: exceptions to statuses, request id, metrics and log, authentication, drain, authorisation, project,
limits, deadline. `Call.admit` shows that order; `interceptors.py` puts it around the four kinds of handlers.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from services.grpckit import status
from services.grpckit.auth import Authenticator, Policy, authorize
from services.grpckit.context import (
    ON_BEHALF_OF_HEADER,
    REQUEST_ID_HEADER,
    CallContext,
    Principal,
    accept_request_id,
    check_project,
    enter,
    is_actor,
)
from services.grpckit.errors import Reason, ServiceError
from services.grpckit.limits import Limits
from services.grpckit.logging import get_logger
from services.grpckit.metrics import MethodMetrics, ServerMetrics
from tuneforge.names import project_of

_log = get_logger(__name__)

HEALTH_PREFIX = "/grpc.health."
REFLECTION_PREFIX = "/grpc.reflection."
_ANYONE = Principal(name="anyone", roles=frozenset(), projects=frozenset())
_FOREVER_S = 1e8  # gRPC tells "no deadline" as None or as some 292 years
_GO_NAMES = {grpc.StatusCode.OK: "OK", grpc.StatusCode.CANCELLED: "Canceled"}

Handler = Any  # grpc.RpcMethodHandler: its type parameters differ by method


def code_label(code: grpc.StatusCode) -> str:
    """Returns a code in go's spelling, as dashboards expect it: `OK`, `NotFound`, `Canceled`."""
    return _GO_NAMES.get(code) or code.name.title().replace("_", "")


@dataclass(slots=True)
class Gate:
    """What the calls of one server have in common."""

    authenticator: Authenticator
    """Turns tokens into principals."""
    policies: Mapping[str, Policy]
    """Full method (`/package.Service/Method`) → its policy. What is not in here is refused."""
    limits: Limits
    """How many calls may run."""
    metrics: ServerMetrics
    """Where calls are counted."""
    unary_deadline_s: float
    """Most seconds of a unary call whose policy names none."""
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the service ends: new calls are refused."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method of the server."""

    name: str
    gate: Gate
    metrics: MethodMetrics
    is_unary: bool
    """Neither side streams."""
    streams_request: bool
    policy: Policy | None
    parse: Callable[[bytes], Any]
    """Turns the bytes of a request into a message. gRPC would do it, before anybody was asked for a token, and would
    answer bytes that do not parse with the exception's text."""
    serialise: Callable[[Any], bytes]
    """Turns an answer into bytes; here, so that a fault in it is mapped like any other."""

    @classmethod
    def of(cls, name: str, handler: Handler, gate: Gate) -> "Method":
        """Returns what is known of a method before any call."""
        service, _, method = name.lstrip("/").rpartition("/")
        kinds = {
            (False, False): "unary",
            (True, False): "client_stream",
            (False, True): "server_stream",
            (True, True): "bidi_stream",
        }
        kind = kinds[handler.request_streaming, handler.response_streaming]
        return cls(
            name=name,
            gate=gate,
            metrics=MethodMetrics(gate.metrics, kind, service, method),
            is_unary=kind == "unary",
            streams_request=handler.request_streaming,
            policy=gate.policies.get(name),
            parse=handler.request_deserializer or bytes,
            serialise=handler.response_serializer or bytes,
        )

    @property
    def is_health(self) -> bool:
        """Health probes come without a token."""
        return self.name.startswith(HEALTH_PREFIX)

    @property
    def is_probe(self) -> bool:
        """Health and reflection: without a policy, and answered during the drain."""
        return self.is_health or self.name.startswith(REFLECTION_PREFIX)


class Call:
    """One running call; used by the wrapper of its handler, in this order: `admit`, `sent`, perhaps `fail`, `end`."""

    __slots__ = (
        "_actor",
        "_began",
        "_code",
        "_has_repeats",
        "_leave",
        "_metadata",
        "_method",
        "_refusal",
        "_request_id",
        "cap_s",
        "grpc_context",
    )

    def __init__(self, method: Method, grpc_context: Any) -> None:
        self._method = method
        self._began = time.monotonic()
        self._code = grpc.StatusCode.OK
        self._leave: Callable[[], None] | None = None
        self._refusal: dict[str, str] = {}
        given = grpc_context.invocation_metadata() or ()
        self._metadata = dict(given)
        self._has_repeats = len(self._metadata) < len(given)
        self._request_id = accept_request_id(self._metadata.get(REQUEST_ID_HEADER))
        self._actor = _ANYONE.name
        self.grpc_context = grpc_context
        self.cap_s: float | None = None
        """Seconds after which the server ends the call; None where it does not."""
        method.metrics.start()
        grpc_context.set_trailing_metadata(((REQUEST_ID_HEADER, self._request_id),))

    def admit(self, request: Any) -> Any:
        """Lets the call through to its handler, or not.

        Args:
            request: The bytes of the message, or the iterator of such bytes.

        Returns:
            What the handler gets as its request.

        Raises:
            ServiceError: The call is refused.
        """
        method, gate = self._method, self._method.gate
        principal = _ANYONE
        if not method.is_health:
            principal = gate.authenticator.authenticate(self._once("authorization"))
        self._actor = self._on_behalf_of(principal)
        deadline = self._deadline()
        enter(
            CallContext(
                principal=principal,
                actor=self._actor,
                request_id=self._request_id,
                deadline_monotonic=deadline,
                method=method.name,
            )
        )
        policy = method.policy
        if not method.is_probe:
            if gate.draining.is_set() and not (policy and policy.while_draining):
                raise ServiceError(Reason.DRAINING, "the service is shutting down")
            if policy is None:
                raise ServiceError(Reason.PERMISSION_DENIED, f"{method.name} has no policy, so nobody may call it")
            authorize(principal, policy)
        self._enter_limits(principal.name)
        if method.streams_request:
            return _Requests(request, self._received, gate.draining if method.is_probe else None)
        message = self._received(request)
        if policy is not None and policy.project_from is not None:
            check_project(principal, project_of(_field(message, policy.project_from)))
        return message

    def _received(self, data: bytes) -> Any:
        try:
            message = self._method.parse(data)
        except DecodeError:
            raise status.UnreadableRequest from None
        self._method.metrics.received()
        return message

    def sent(self, message: Any) -> bytes:
        """Counts a message sent and returns its bytes.

        A handler may give bytes itself: one event goes to a thousand watchers, and is serialised once.
        """
        data = message if isinstance(message, bytes) else self._method.serialise(message)
        self._method.metrics.sent()
        return data

    async def fail(self, error: BaseException) -> None:
        """Ends the call for an exception of its handler.

        Raises:
            grpc.aio.AbortError: The call was answered with a status. When it returns, the exception goes on as it is.
        """
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            # The client left, its deadline passed, or the server's grace is over: nobody is there for an answer.
            remaining = self.grpc_context.time_remaining()
            is_late = remaining is not None and remaining <= 0
            self._code = grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.CANCELLED
            return
        if isinstance(error, grpc.aio.AbortError):
            self._code = self.grpc_context.code() or grpc.StatusCode.UNKNOWN
            return
        if not isinstance(error, Exception):
            return
        answer = status.expected(error)
        if answer is None:
            incident = uuid.uuid4().hex
            _log.error("a call met a fault of the service", incident=incident, exc_info=error, **self._who())
            answer = status.internal(incident)
        self._code = status.CODES[answer.code]
        self._refusal = {"reason": answer.reason.value, "message": answer.message}
        await self.grpc_context.abort_with_status(status.RichStatus(answer, self._request_id))

    def end(self) -> None:
        """Counts and logs the end of the call; always called once."""
        if self._leave is not None:
            self._leave()
        seconds = time.monotonic() - self._began
        self._method.metrics.end(code_label(self._code), seconds)
        is_quiet = self._method.is_probe or (self._method.policy is not None and self._method.policy.is_quiet)
        say = _log.debug if is_quiet else _log.info
        say("call", code=self._code.name, seconds=round(seconds, 6), **self._who(), **self._refusal)

    def over_time(self) -> ServiceError:
        """Returns the answer for a unary call that reached the server's own limit."""
        return ServiceError(
            Reason.DEADLINE_EXCEEDED,
            f"the call took longer than the server's limit of {self.cap_s:g} s",
            metadata={"limit_s": f"{self.cap_s:g}"},
        )

    def _who(self) -> dict[str, str]:
        return {"method": self._method.name, "request_id": self._request_id, "actor": self._actor}

    def _text(self, key: str) -> str | None:
        value = self._metadata.get(key)
        return value if isinstance(value, str) else None

    def _once(self, key: str) -> str | None:
        """Returns what tells who calls; given twice, a proxy and this service might each believe another one."""
        if self._has_repeats and [each for each, _ in self.grpc_context.invocation_metadata()].count(key) > 1:
            raise ServiceError(Reason.UNAUTHENTICATED, f"the call has `{key}` more than once; send one")
        return self._text(key)

    def _on_behalf_of(self, principal: Principal) -> str:
        given = self._once(ON_BEHALF_OF_HEADER)
        if given is None:
            return principal.name
        if not principal.is_service:
            raise ServiceError(
                Reason.PERMISSION_DENIED,
                f"{principal.name} is no service, and so may not speak for another ({ON_BEHALF_OF_HEADER})",
                metadata={"principal": principal.name},
            )
        if not is_actor(given):
            raise ServiceError(Reason.PERMISSION_DENIED, f"{ON_BEHALF_OF_HEADER} is not 1 to 256 printable characters")
        return given

    def _deadline(self) -> float | None:
        remaining = self.grpc_context.time_remaining()
        limit = None if remaining is None or remaining > _FOREVER_S else remaining
        if self._method.is_unary:
            policy = self._method.policy
            cap = policy.deadline_s if policy and policy.deadline_s is not None else self._method.gate.unary_deadline_s
            if limit is None or cap < limit:
                self.cap_s = limit = cap
        return None if limit is None else self._began + limit

    def _enter_limits(self, principal: str) -> None:
        limits = self._method.gate.limits
        if self._method.is_probe:
            limits.enter_probe()
            self._leave = limits.leave_probe
        elif self._method.is_unary:
            limits.enter_unary()
            self._leave = limits.leave_unary
        else:
            limits.enter_stream(principal)
            self._leave = lambda: limits.leave_stream(principal)


class _Requests:
    """The messages of a client's stream; ends with the drain where nothing else would end it.

    Args:
        messages: What comes, as bytes.
        receive: Turns bytes into a message, and counts it.
        until: What ends the stream from our side; None leaves it to the client.
    """

    def __init__(
        self, messages: AsyncIterator[bytes], receive: Callable[[bytes], Any], until: asyncio.Event | None
    ) -> None:
        self._messages = messages
        self._receive = receive
        self._until = until

    def __aiter__(self) -> "_Requests":
        return self

    async def __anext__(self) -> Any:
        return self._receive(await (anext(self._messages) if self._until is None else self._next_or_drain(self._until)))

    async def _next_or_drain(self, until: asyncio.Event) -> bytes:
        """Raises StopAsyncIteration too once the drain begins: grpcurl holds reflection open while it watches."""
        following = asyncio.ensure_future(anext(self._messages))
        draining = asyncio.ensure_future(until.wait())
        try:
            await asyncio.wait({following, draining}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                raise StopAsyncIteration
            return following.result()
        finally:
            following.cancel()
            draining.cancel()


def _field(request: Any, path: str) -> str:
    for part in path.split("."):
        request = getattr(request, part)
    return str(request)
