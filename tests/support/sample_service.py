"""A service with one method of each of the four kinds, for tests of grpckit; run as a module it is a whole process.

Its messages are `google.protobuf.StringValue`, so that it needs no proto of its own: the descriptor is made here.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, wrappers_pb2
from google.protobuf.descriptor import ServiceDescriptor

from services.grpckit import context, peers
from services.grpckit.auth import Policy
from services.grpckit.errors import FieldViolation, ServiceError, invalid_fields, not_found
from services.grpckit.server import ServiceDefinition, run, serve
from services.grpckit.settings import ServerSettings

Text = wrappers_pb2.StringValue
NAME = "tuneforge.test.v1.SampleService"
_KINDS = {"Say": (False, False), "Count": (False, True), "Collect": (True, False), "Chat": (True, True)}
POLICIES: Mapping[str, Policy] = {
    "Say": Policy("samples.read", "value"),
    "Count": Policy("samples.read", "value"),
    "Collect": Policy("samples.write"),
    "Chat": Policy("samples.internal", while_draining=True),
}


def descriptor() -> ServiceDescriptor:
    """Returns the descriptor of the service, made at the first call."""
    pool = descriptor_pool.Default()
    try:
        return pool.FindServiceByName(NAME)
    except KeyError:
        pass
    file = descriptor_pb2.FileDescriptorProto(
        name="tuneforge/test/v1/sample.proto",
        package="tuneforge.test.v1",
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    service = file.service.add(name="SampleService")
    for name, (client_streaming, server_streaming) in _KINDS.items():
        service.method.add(
            name=name,
            input_type=".google.protobuf.StringValue",
            output_type=".google.protobuf.StringValue",
            client_streaming=client_streaming,
            server_streaming=server_streaming,
        )
    pool.Add(file)
    return pool.FindServiceByName(NAME)


class Sample:
    """Does what the last part of the name in a request says: `projects/p/<verb>`."""

    def __init__(self, peer: str = "") -> None:
        self.events: list[str] = []
        """What happened inside handlers, for assertions."""
        self.entered = asyncio.Event()
        """Set when a handler waits."""
        self.release = asyncio.Event()
        """Ends the waiting of `wait` and of endless streams."""
        self._peer = peer

    async def Say(self, request: Any, _context: Any) -> Any:
        """Answers one message."""
        verb = request.value.rpartition("/")[2]
        call = context.current()
        if verb == "whoami":
            return Text(value=f"{call.principal.name} {call.actor} {call.request_id}")
        if verb == "deadline":
            return Text(value=f"{call.remaining_s():.3f}")
        if verb == "ask":
            async with peers.open_channel(self._peer) as channel:
                return await peers.call(stub(channel).Say(Text(value="projects/p/whoami")), peer="the other")
        if verb == "wait":
            await self._wait()
        _raise(verb)
        return request

    async def Count(self, request: Any, _context: Any) -> AsyncIterator[Any]:
        """Streams two messages, then does what the verb says."""
        verb = request.value.rpartition("/")[2]
        try:
            yield Text(value="1")
            yield Text(value="2")
            if verb == "flood":
                while True:
                    yield Text(value="x" * 1024)
            if verb == "wait":
                await self._wait()
            _raise(verb)
        except BaseException as error:
            self.events.append(type(error).__name__)
            raise
        finally:
            self.events.append("closed")
            self.release.set()

    async def Collect(self, requests: AsyncIterator[Any], _context: Any) -> Any:
        """Joins messages; the first one names the project."""
        values: list[str] = []
        async for request in requests:
            if not values:
                context.require_project(request.value.split("/")[1])
            _raise(request.value.rpartition("/")[2])
            values.append(request.value)
        return Text(value=",".join(values))

    async def Chat(self, requests: AsyncIterator[Any], _context: Any) -> AsyncIterator[Any]:
        """Echoes messages."""
        async for request in requests:
            _raise(request.value.rpartition("/")[2])
            yield request

    async def _wait(self) -> None:
        self.entered.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.events.append("cancelled")
            raise
        finally:
            self.release.set()


def _raise(verb: str) -> None:
    if verb == "missing":
        raise not_found("sample", "projects/p/missing")
    if verb == "invalid":
        raise invalid_fields([FieldViolation("a", "a is wrong"), FieldViolation("b", "b is wrong")])
    if verb == "many":
        raise invalid_fields([FieldViolation(f"rows[{n}]", "ü" * 300) for n in range(100)])
    if verb == "state":
        raise ServiceError("WRONG_STATE", "the sample has ended", metadata={"state": "DONE"})
    if verb == "full":
        raise OSError(28, "No space left on device")
    if verb == "fault":
        raise ValueError("secret detail")


def add_to_server(servicer: Sample, server: Any) -> None:
    """Adds the methods, as generated code does."""
    makers: Any = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    handlers = {
        name: makers[kind](
            getattr(servicer, name), request_deserializer=Text.FromString, response_serializer=Text.SerializeToString
        )
        for name, kind in _KINDS.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))


class _Stub:
    Say: Any
    Count: Any
    Collect: Any
    Chat: Any


def stub(channel: Any) -> _Stub:
    """Returns a stub on a sync or an aio channel."""
    made = _Stub()
    for name, (client_streaming, server_streaming) in _KINDS.items():
        kind = f"{'stream' if client_streaming else 'unary'}_{'stream' if server_streaming else 'unary'}"
        method = getattr(channel, kind)(f"/{NAME}/{name}", Text.SerializeToString, Text.FromString)
        setattr(made, name, method)
    return made


def definition(servicer: Sample, **changes: Any) -> ServiceDefinition:
    """Returns the definition of the service, with changes."""
    keywords = {"policies": POLICIES, **changes}
    return ServiceDefinition(descriptor=descriptor(), add_to_server=add_to_server, servicer=servicer, **keywords)


async def _main() -> int:
    sample = Sample(os.environ.get("SAMPLE_PEER", ""))

    async def drain() -> None:
        sample.release.set()

    drain_hook = None if os.environ.get("SAMPLE_STUBBORN") else drain
    return await serve(definition(sample, drain=drain_hook), ServerSettings.from_env("sample", 7199))


if __name__ == "__main__":
    sys.exit(run(_main(), service="sample"))
