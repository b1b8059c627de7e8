"""Calls between services: request id, deadline, end user and token travel along; errors come back as answers."""

import contextlib
import socket
import time
from dataclasses import replace
from typing import Any

import grpc
import pytest

from services.grpckit import context, peers
from services.grpckit.errors import ServiceError
from services.grpckit.folder_lock import StartRefused
from services.grpckit.settings import PeerSettings, ServerSettings
from services.grpckit.testing import serve_in_process
from tests.support.event_loop import on_loop
from tests.support.sample_service import Sample, Text, definition, stub
from tuneforge.errors import from_rpc_error

SETTINGS = ServerSettings(service="sample", listen="127.0.0.1:0", drain_s=1.0, log_level="error")


@on_loop
async def test_the_request_id_travels_through_services() -> None:
    """A call that makes a call: the second service sees the id that the client gave to the first."""
    async with (
        serve_in_process(definition(Sample()), SETTINGS) as second,
        serve_in_process(definition(Sample(second)), SETTINGS) as first,
        grpc.aio.insecure_channel(first) as channel,
    ):
        call = stub(channel).Say(Text(value="projects/p/ask"), metadata=(("x-request-id", "from-the-client"),))
        assert (await call).value == "local local from-the-client"


@on_loop
async def test_the_end_user_is_passed_on_and_stays_the_actor() -> None:
    """A service that acts for somebody is the principal, and that somebody is the actor."""
    async with serve_in_process(definition(Sample()), SETTINGS) as target, peers.open_channel(target) as channel:
        with context.background("scheduler.loop", request_id="r", actor="alice"):
            answer = await peers.call(stub(channel).Say(Text(value="projects/p/whoami")))
        assert answer.value == "local alice r"
        with context.background("scheduler.loop", request_id="r"):
            answer = await peers.call(stub(channel).Say(Text(value="projects/p/whoami")))
        assert answer.value == "local local r"


@on_loop
async def test_the_callers_deadline_is_passed_on() -> None:
    """The peer gets what is left of the caller's deadline, or the peer limit where that is nearer."""
    async with serve_in_process(definition(Sample()), SETTINGS) as target, peers.open_channel(target) as channel:
        for remaining, low, high in ((5.0, 1.0, 5.2), (None, 5.2, 10.2), (100.0, 5.2, 10.2)):
            with _deadline(remaining):
                answer = await peers.call(stub(channel).Say(Text(value="projects/p/deadline")))
            assert low < float(answer.value) <= high
        with _deadline(0.2), pytest.raises(ServiceError) as caught:
            await peers.call(stub(channel).Say(Text(value="projects/p/wait")), peer="the other")
        assert caught.value.reason == "DEADLINE_EXCEEDED"


def _deadline(remaining_s: float | None) -> Any:
    @contextlib.contextmanager
    def within() -> Any:
        with context.background("test") as call:
            if remaining_s is not None:
                context.enter(replace(call, deadline_monotonic=time.monotonic() + remaining_s))
            yield

    return within()


@on_loop
async def test_what_a_peer_says_is_passed_on() -> None:
    """A reason of the peer is the reason here; a fault there is a fault, under the peer's incident id."""
    async with serve_in_process(definition(Sample()), SETTINGS) as target, peers.open_channel(target) as channel:
        for verb, reason in (("missing", "NOT_FOUND"), ("invalid", "INVALID_FIELD"), ("fault", "INTERNAL")):
            with pytest.raises(ServiceError) as caught:
                await peers.call(stub(channel).Say(Text(value=f"projects/p/{verb}")))
            assert caught.value.reason == reason
        assert caught.value.metadata["incident"]
        with pytest.raises(ServiceError) as caught:
            [message async for message in peers.messages(stub(channel).Count(Text(value="projects/p/state")))]
        assert caught.value.metadata == {"state": "DONE"}


@on_loop
async def test_a_peer_that_is_not_there_is_unavailable() -> None:
    """Nobody answers: PEER_UNAVAILABLE with the peer's name, unary and stream, and through a service to its client."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        nowhere = f"127.0.0.1:{taken.getsockname()[1]}"
        async with peers.open_channel(nowhere, PeerSettings(timeout_s=5.0)) as channel:
            with pytest.raises(ServiceError, match="the registry did not answer") as caught:
                await peers.call(stub(channel).Say(Text(value="projects/p/ok")), peer="the registry")
            assert (caught.value.reason, caught.value.code) == ("PEER_UNAVAILABLE", "UNAVAILABLE")
            with pytest.raises(ServiceError, match="the registry did not answer"):
                [m async for m in peers.messages(stub(channel).Count(Text(value="x")), peer="the registry")]
        async with (
            serve_in_process(definition(Sample(nowhere)), SETTINGS) as target,
            grpc.aio.insecure_channel(target) as channel,
        ):
            with pytest.raises(grpc.RpcError) as failed:
                await stub(channel).Say(Text(value="projects/p/ask"))
            error = from_rpc_error(failed.value)
            assert (error.reason, error.retry_after_s) == ("PEER_UNAVAILABLE", 1.0)


@on_loop
async def test_a_reader_that_stops_cancels_the_stream() -> None:
    """Closing the reader of a stream ends the handler at the peer."""
    sample = Sample()
    async with serve_in_process(definition(sample), SETTINGS) as target, peers.open_channel(target) as channel:
        reader = peers.messages(stub(channel).Count(Text(value="projects/p/wait")))
        assert (await anext(reader)).value == "1"
        await reader.aclose()
        await sample.release.wait()
        assert sample.events[-1] == "closed"


@pytest.mark.parametrize(
    ("address", "settings", "problem"),
    [
        ("nowhere", PeerSettings(), "host:port"),
        ("127.0.0.1:0", PeerSettings(), "host:port"),
        ("10.0.0.1:7101", PeerSettings(token="t"), "unencrypted"),
    ],
)
def test_an_unsafe_or_malformed_peer_is_refused(address: str, settings: PeerSettings, problem: str) -> None:
    """A token never travels in plain text to another machine, and a wrong address is told at the start."""
    with pytest.raises(StartRefused, match=problem):
        peers.open_channel(address, settings)
