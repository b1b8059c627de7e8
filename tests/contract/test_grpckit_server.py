"""A service as a process: the line when it is ready, the drain, the exit codes, and what makes it refuse to start."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from services.grpckit.auth import Policy
from services.grpckit.folder_lock import StartRefused
from services.grpckit.server import Server
from services.grpckit.settings import ServerSettings
from services.grpckit.testing import running_server
from tests.support.event_loop import on_loop
from tests.support.sample_service import POLICIES, Sample, Text, definition, stub
from tuneforge.errors import from_rpc_error

SETTINGS = ServerSettings(service="sample", listen="127.0.0.1:0", drain_s=5.0, log_level="error")
ROOT = Path(__file__).parents[2]
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@contextmanager
def _process(tmp_path: Path, **env: str) -> Iterator[subprocess.Popen[str]]:
    """Runs the sample service as a process; it is gone afterwards in any case."""
    settings = {"TUNEFORGE_SAMPLE_LISTEN": "127.0.0.1:0", "TUNEFORGE_DATA": str(tmp_path), **env}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.sample_service"],
        cwd=ROOT,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _ready(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Returns the gRPC and the metrics address, from the one line on stdout."""
    assert process.stdout is not None
    words = process.stdout.readline().split()
    assert words[:4] == ["tuneforge", "sample", "listening", "on"]
    return words[4], words[7] if len(words) > 5 else ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_exits_clean(tmp_path: Path, number: signal.Signals) -> None:
    """A service says where it listens on one line of stdout, drains at the signal, and exits 0 without a traceback."""
    with _process(tmp_path) as process:
        target, metrics = _ready(process)
        with grpc.insecure_channel(target) as channel:
            assert stub(channel).Say(Text(value="projects/p/ok")).value == "projects/p/ok"
        assert metrics.startswith("127.0.0.1:")
        process.send_signal(number)
        out, err = process.communicate()
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in err
    assert "everyone on this machine is the principal 'local'" in err


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    """A drain that waits for a running call is cut by a second signal."""
    with _process(tmp_path, SAMPLE_STUBBORN="1") as process:
        target, _ = _ready(process)
        with grpc.insecure_channel(target) as channel:
            stream = stub(channel).Count(Text(value="projects/p/wait"))
            assert [next(stream).value, next(stream).value] == ["1", "2"]
            process.terminate()
            assert process.stderr is not None
            while "draining" not in process.stderr.readline():
                pass
            process.terminate()
            assert process.wait() == -signal.SIGTERM, "a drain that went on to its end would exit 0"


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    """A port in use, for gRPC or for metrics, is exit code 78 and one line that says what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for name in ("TUNEFORGE_SAMPLE_LISTEN", "TUNEFORGE_SAMPLE_METRICS_LISTEN"):
            with _process(tmp_path, **{name: address}) as process:
                out, err = process.communicate()
            assert (process.returncode, out) == (78, "")
            assert err.count("\n") == 1
            assert err.startswith(f"tuneforge sample: {address} is in use by another process; stop that process")


def test_two_services_cannot_share_a_port(tmp_path: Path) -> None:
    """A second start on the port of a running service is refused, not bound beside it in silence."""
    with _process(tmp_path) as first:
        target, _ = _ready(first)
        with _process(tmp_path, TUNEFORGE_SAMPLE_LISTEN=target) as second:
            _, err = second.communicate()
        assert second.returncode == 78
        assert target in err
        with grpc.insecure_channel(target) as channel:
            assert stub(channel).Say(Text(value="projects/p/ok")).value == "projects/p/ok"


@pytest.mark.parametrize(
    ("env", "line"),
    [
        (
            {"TUNEFORGE_SAMPLE_LISTEN": "0.0.0.0:0"},
            "tuneforge sample: refusing to listen on 0.0.0.0:0: it is not a loop",
        ),
        ({"TUNEFORGE_SAMPLE_LISTEN": "192.0.2.1:80"}, "tuneforge sample: refusing to listen on 192.0.2.1:80"),
        ({"TUNEFORGE_SAMPLE_LISTEN": "here"}, "tuneforge sample: TUNEFORGE_SAMPLE_LISTEN='here' is wrong"),
        ({"TUNEFORGE_TOKENS_FILE": "/nowhere"}, "tuneforge sample: TUNEFORGE_TOKENS_FILE='/nowhere' is wrong"),
    ],
)
def test_wrong_settings_are_one_clear_line(tmp_path: Path, env: dict[str, str], line: str) -> None:
    """Settings that cannot be served are exit code 78 and a line each, without a traceback."""
    with _process(tmp_path, **env) as process:
        out, err = process.communicate()
    assert (process.returncode, out) == (78, "")
    assert err.startswith(line)
    assert err.count("\n") == 1


@on_loop
async def test_a_definition_with_a_hole_does_not_start() -> None:
    """A method without a policy, a policy without a method and a wrong project field are all told, and nothing runs."""
    cases: list[tuple[dict[str, Any], str]] = [
        ({"policies": {k: v for k, v in POLICIES.items() if k != "Say"}}, "Say has no policy"),
        ({"policies": {**POLICIES, "Sing": Policy("samples.read")}}, "names Sing, which is no method"),
        ({"policies": {**POLICIES, "Say": Policy("samples.read", "name")}}, "takes the project from name"),
        ({"policies": {**POLICIES, "Say": Policy("samples.read", "value.name")}}, "takes the project from value.name"),
        ({"policies": {**POLICIES, "Chat": Policy("samples.read", "value")}}, "Chat streams requests"),
    ]
    for changes, problem in cases:
        with pytest.raises(StartRefused, match=problem):
            await Server(definition(Sample(), **changes), SETTINGS).start()


@on_loop
async def test_a_servicer_that_would_block_does_not_start() -> None:
    """A method that is not async, or missing, is told at the start: it would block every other call."""

    class Blocking(Sample):
        def Say(self, request: Any, _context: Any) -> Any:
            return request

    with pytest.raises(StartRefused, match="Say is no async method"):
        await Server(definition(Blocking()), SETTINGS).start()


@on_loop
async def test_hooks_come_in_order_and_close_comes_after_a_failed_start() -> None:
    """start, listening, drain, close; and close alone when start fails, with the port free again."""
    seen: list[str] = []

    def hook(name: str, error: Exception | None = None) -> Any:
        async def run(*arguments: str) -> None:
            seen.append(" ".join([name, *arguments]))
            if error:
                raise error

        return run

    hooks = {name: hook(name) for name in ("start", "drain", "close", "listening")}
    async with running_server(definition(Sample(), **hooks), SETTINGS) as server:
        address = server.address
    assert seen == ["start", f"listening {address}", "drain", "close"]
    seen.clear()
    failing = {**hooks, "start": hook("start", StartRefused("no"))}
    port = int(address.rpartition(":")[2])
    server = Server(definition(Sample(), **failing), replace(SETTINGS, listen=address))
    with pytest.raises(StartRefused, match="no"):
        await server.start()
    assert seen == ["start", "close"]
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


@on_loop
async def test_a_failing_drain_does_not_keep_the_service_alive() -> None:
    """Whatever the service's drain meets, the server still stops and closes."""
    closed = asyncio.Event()

    async def drain() -> None:
        raise ValueError("x")

    async def close() -> None:
        closed.set()

    async with running_server(definition(Sample(), drain=drain, close=close), SETTINGS):
        pass
    assert closed.is_set()


def _health(channel: grpc.aio.Channel, method: str, kind: str) -> Any:
    make = getattr(channel, kind)
    request, response = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
    return make(f"/grpc.health.v1.Health/{method}", request.SerializeToString, response.FromString)


@on_loop
async def test_the_drain_tells_health_ends_watches_and_refuses_new_calls() -> None:
    """At the drain health says NOT_SERVING, new calls get DRAINING, running ones end, marked methods go on."""
    sample = Sample()
    drained = asyncio.Event()

    async def drain() -> None:
        await drained.wait()

    async with (
        running_server(definition(sample, drain=drain), replace(SETTINGS, drain_s=100.0)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        watch = _health(channel, "Watch", "unary_stream")(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        running = stub(channel).Say(Text(value="projects/p/wait"))
        await sample.entered.wait()
        stopping = asyncio.create_task(server.stop())
        assert (await watch.read()).status == NOT_SERVING
        assert await watch.read() is grpc.aio.EOF
        check = _health(channel, "Check", "unary_unary")
        assert (await check(health_pb2.HealthCheckRequest())).status == NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:
            await stub(channel).Say(Text(value="projects/p/ok"))
        error = from_rpc_error(caught.value)
        assert (error.reason, error.retry_after_s) == ("DRAINING", 1.0)
        chat = stub(channel).Chat(iter([Text(value="still here")]))
        assert [message.value async for message in chat] == ["still here"]
        drained.set()
        sample.release.set()
        assert (await running).value == "projects/p/wait"
        await asyncio.wait_for(stopping, 50)  # half of the grace


@on_loop
async def test_open_reflection_does_not_hold_up_the_end() -> None:
    """A client that keeps a reflection stream open, as grpcurl does, does not make the stop wait for its grace."""
    from grpc_reflection.v1alpha import reflection_pb2

    async with (
        running_server(definition(Sample()), replace(SETTINGS, drain_s=60.0)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        make: Any = channel.stream_stream
        request = reflection_pb2.ServerReflectionRequest
        stream = make(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )()
        await stream.write(request(list_services=""))
        await stream.read()
        await asyncio.wait_for(server.stop(), 30)  # half of the grace
        assert await stream.read() is grpc.aio.EOF


@on_loop
async def test_a_stream_that_ignores_the_drain_is_cut_after_the_grace() -> None:
    """The grace bounds the end: a stream that goes on is cut with UNAVAILABLE."""
    async with (
        running_server(definition(Sample()), replace(SETTINGS, drain_s=0.2)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stream = stub(channel).Count(Text(value="projects/p/wait"))
        await stream.read()
        await stream.read()
        await server.stop()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@on_loop
async def test_health_knows_its_services() -> None:
    """The empty name and the service are SERVING, another name is NOT_FOUND at Check and SERVICE_UNKNOWN at Watch."""
    async with (
        running_server(definition(Sample()), SETTINGS) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        check = _health(channel, "Check", "unary_unary")
        for name in ("", "tuneforge.test.v1.SampleService"):
            assert (await check(health_pb2.HealthCheckRequest(service=name))).status == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await check(health_pb2.HealthCheckRequest(service="none"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watch = _health(channel, "Watch", "unary_stream")(health_pb2.HealthCheckRequest(service="none"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        watch.cancel()
        make: Any = channel.unary_unary
        list_health = make(
            "/grpc.health.v1.Health/List",
            health_pb2.HealthListRequest.SerializeToString,
            health_pb2.HealthListResponse.FromString,
        )
        statuses = (await list_health(health_pb2.HealthListRequest())).statuses
        assert set(statuses) == {"", "tuneforge.test.v1.SampleService"}
