"""Puts the gate around every handler of a server, whichever of the four kinds it is.

It is one interceptor, because each layer of gRPC's own costs a coroutine a call. The wrapped handlers are made once a
method; what they do with a call is in `calls.py`.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import grpc

from services.grpckit.calls import Call, Gate, Handler, Method

_FIRST_MESSAGE_S = 1.0
"""Seconds that a client which is refused has for its first message."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Puts `Gate` around every handler of a server."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], handler_call_details: Any
    ) -> Handler:
        """Returns the method's handler, wrapped; gRPC answers UNIMPLEMENTED to a method that there is not."""
        name = handler_call_details.method
        wrapped = self._wrapped.get(name)
        if wrapped is None:
            inner = await continuation(handler_call_details)
            if inner is None:
                return None
            wrapped = self._wrapped[name] = wrap(inner, Method.of(name, inner, self._gate))
        return wrapped


def wrap(inner: Handler, method: Method) -> Handler:
    """Returns a handler of the same kind that passes the gate.

    Raises:
        TypeError: The servicer's method is not async: it would block every other call.
    """
    if inner.response_streaming:
        behaviour = inner.stream_stream if inner.request_streaming else inner.unary_stream
        if not inspect.isasyncgenfunction(behaviour):
            raise TypeError(f"{method.name} must be an async generator")
        make = (
            grpc.stream_stream_rpc_method_handler if inner.request_streaming else grpc.unary_stream_rpc_method_handler
        )
        return make(_many_answers(behaviour, method))  # bytes in, bytes out: `Call` parses and serialises
    behaviour = inner.stream_unary if inner.request_streaming else inner.unary_unary
    if not inspect.iscoroutinefunction(behaviour):
        raise TypeError(f"{method.name} must be async")
    make = grpc.stream_unary_rpc_method_handler if inner.request_streaming else grpc.unary_unary_rpc_method_handler
    return make(_one_answer(behaviour, method))


def _one_answer(behaviour: Callable[..., Awaitable[Any]], method: Method) -> Callable[..., Awaitable[Any]]:
    async def answer(request: Any, context: Any) -> Any:
        call = Call(method, context)
        limit = None
        try:
            request = call.admit(request)
            async with asyncio.timeout(call.cap_s) as limit:
                response = call.sent(await behaviour(request, context))
        except BaseException as error:
            is_ours = isinstance(error, TimeoutError) and limit is not None and limit.expired()
            await call.fail(call.over_time() if is_ours else error)
            raise
        else:
            return response
        finally:
            call.end()

    return answer


async def _first_message(requests: AsyncIterator[Any]) -> None:
    """Waits a moment for what the client sends first, before it is refused.

    An asyncio client whose first write is under way when the refusal comes is told INTERNAL in its place:
    https://github.com/grpc/grpc/issues/36066.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(_FIRST_MESSAGE_S):
            await anext(requests, None)


def _many_answers(behaviour: Callable[..., AsyncIterator[Any]], method: Method) -> Callable[..., AsyncIterator[Any]]:
    async def answer(request: Any, context: Any) -> AsyncIterator[Any]:
        call = Call(method, context)
        responses: Any = None
        try:
            responses = behaviour(call.admit(request), context)
            async for response in responses:
                yield call.sent(response)
        except BaseException as error:
            # A client that leaves shows as CancelledError where the handler awaits, but as GeneratorExit here, at the
            # `yield`; then the inner generator knows nothing yet and must be closed, or its `finally` runs much later.
            if responses is None and method.streams_request:
                await _first_message(request)
            await call.fail(error)
            raise
        finally:
            try:
                if responses is not None:
                    await responses.aclose()
            finally:
                call.end()

    return answer
