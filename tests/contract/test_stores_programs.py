"""Servers of others are started from a process in which gRPC is at work."""

import asyncio
import signal
import subprocess
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.grpckit.health import Health
from services.stores.programs import start_program, unprivileged
from tests.support.event_loop import on_loop

STARTS = 60


@on_loop
async def test_programs_start_while_calls_are_made(tmp_path: Path) -> None:
    """Each one runs, as another user where this is root, and no call notices."""
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(Health([]), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    is_over = asyncio.Event()

    async def calls() -> None:
        while not is_over.is_set():
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub: Any = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
                for _ in range(20):
                    await stub.Check(health_pb2.HealthCheckRequest())

    def starts() -> list[int]:
        started: list[subprocess.Popen[bytes]] = [
            start_program(["/bin/true"], tmp_path / "log", user=unprivileged(), end=signal.SIGINT)
            for _ in range(STARTS)
        ]
        return [process.wait() for process in started]

    try:
        async with asyncio.TaskGroup() as group:
            calling = group.create_task(calls())
            assert await asyncio.to_thread(starts) == [0] * STARTS
            is_over.set()
        await calling
    finally:
        await server.stop(None)
