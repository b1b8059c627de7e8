"""`/metrics` over HTTP, under the names that dashboards for gRPC servers expect."""

import asyncio
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.grpckit.server import Server
from services.grpckit.settings import ServerSettings
from services.grpckit.testing import running_server
from tests.support.event_loop import on_loop
from tests.support.sample_service import NAME, Sample, Text, definition, stub

SETTINGS = ServerSettings(
    service="sample", listen="127.0.0.1:0", metrics_listen="127.0.0.1:0", drain_s=1.0, log_level="error"
)


async def _http(server: Server, request: bytes) -> tuple[bytes, bytes]:
    host, _, port = server.metrics_address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


async def _samples(server: Server) -> dict[tuple[str, ...], float]:
    head, body = await _http(server, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert f"Content-Length: {len(body)}".encode() in head
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            labels = sample.labels
            if labels.get("grpc_service") == NAME and "le" not in labels:
                key = (sample.name, labels["grpc_type"], labels["grpc_method"], labels.get("grpc_code", ""))
                found[key] = sample.value
    return found


async def _requests(*values: str) -> Any:
    for value in values:
        yield Text(value=value)


@on_loop
async def test_calls_of_all_kinds_are_counted() -> None:
    """Started, handled by code, messages both ways, duration; for each kind under its own type."""
    async with running_server(definition(Sample()), SETTINGS) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            method = stub(channel)
            await method.Say(Text(value="projects/p/ok"))
            with pytest.raises(grpc.RpcError):
                await method.Say(Text(value="projects/p/missing"))
            assert len([message async for message in method.Count(Text(value="projects/p/ok"))]) == 2
            await method.Collect(_requests("projects/p/a", "projects/p/b", "projects/p/c"))
            assert len([message async for message in method.Chat(_requests("a", "b"))]) == 2
        seen = await _samples(server)
    for name, kind, called, code, value in (
        ("grpc_server_started_total", "unary", "Say", "", 2),
        ("grpc_server_handled_total", "unary", "Say", "OK", 1),
        ("grpc_server_handled_total", "unary", "Say", "NotFound", 1),
        ("grpc_server_msg_received_total", "unary", "Say", "", 2),
        ("grpc_server_msg_sent_total", "unary", "Say", "", 1),
        ("grpc_server_handling_seconds_count", "unary", "Say", "", 2),
        ("grpc_server_handled_total", "server_stream", "Count", "OK", 1),
        ("grpc_server_msg_sent_total", "server_stream", "Count", "", 2),
        ("grpc_server_stream_seconds_count", "server_stream", "Count", "", 1),
        ("grpc_server_msg_received_total", "client_stream", "Collect", "", 3),
        ("grpc_server_msg_received_total", "bidi_stream", "Chat", "", 2),
        ("grpc_server_msg_sent_total", "bidi_stream", "Chat", "", 2),
        ("grpc_server_running", "bidi_stream", "Chat", "", 0),
    ):
        assert seen[name, kind, called, code] == value, (name, called)


@on_loop
async def test_the_page_shows_the_process_and_nothing_else_is_served() -> None:
    """The page has the process' own metrics and the event loop's delay; other paths are 404, garbage is dropped."""
    async with running_server(definition(Sample()), SETTINGS) as server:
        _, body = await _http(server, b"GET /metrics?x=1 HTTP/1.0\r\n\r\n")
        assert b"process_resident_memory_bytes" in body
        assert b"tuneforge_event_loop_delay_seconds" in body
        for request in (b"GET / HTTP/1.1\r\n\r\n", b"POST /metrics HTTP/1.1\r\n\r\n", b"\x00\xff\r\n\r\n"):
            head, _ = await _http(server, request)
            assert head.startswith(b"HTTP/1.1 404")
        head, _ = await _http(server, b"x" * 20_000 + b"\r\n\r\n")
        assert head == b""


@on_loop
async def test_two_servers_of_one_process_count_apart() -> None:
    """Each server has its own counters."""
    async with (
        running_server(definition(Sample()), SETTINGS) as one,
        running_server(definition(Sample()), SETTINGS) as two,
    ):
        async with grpc.aio.insecure_channel(one.address) as channel:
            await stub(channel).Say(Text(value="projects/p/ok"))
        assert ("grpc_server_started_total", "unary", "Say", "") in await _samples(one)
        assert await _samples(two) == {}
