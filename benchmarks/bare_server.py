"""The peer of `cold_start`: the smallest server on the same libraries, without any service in it.

Opens a database file, serves health and reflection, prints one line, and ends at SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import sys

import grpc
import prometheus_client  # noqa: F401 - every service has it
import pysqlite3
import structlog  # noqa: F401 - every service has it
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from sqlalchemy import create_engine, text


async def main(path: str) -> None:
    """Serves until SIGTERM."""
    with create_engine(f"sqlite+pysqlite:///{path}", module=pysqlite3).connect() as connection:
        connection.execute(text("SELECT 1"))
    server = grpc.aio.server()
    servicer = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    reflection.enable_server_reflection(  # type: ignore[no-untyped-call]
        (health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME), server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    print(f"listening on 127.0.0.1:{port}", flush=True)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await stopping.wait()
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
