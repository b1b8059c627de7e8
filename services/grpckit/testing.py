"""A service on a real loopback socket inside a test, with the same gate as in production."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from services.grpckit import logging
from services.grpckit.server import Server, ServiceDefinition
from services.grpckit.settings import ServerSettings


@asynccontextmanager
async def serve_in_process(definition: ServiceDefinition, settings: ServerSettings | None = None) -> AsyncIterator[str]:
    """Serves a definition on a free port of loopback while the block runs, then drains it as SIGTERM would.

    Args:
        definition: The service.
        settings: Limits, tokens, TLS; its address is replaced by a free port. None takes the defaults.

    Yields:
        `host:port`.
    """
    async with running_server(definition, settings) as server:
        yield server.address


@asynccontextmanager
async def running_server(
    definition: ServiceDefinition, settings: ServerSettings | None = None
) -> AsyncIterator[Server]:
    """Serves like `serve_in_process`, and yields the server itself, for tests of the drain and of metrics."""
    settings = settings or ServerSettings(service="test", listen="127.0.0.1:0", drain_s=1.0)
    settings = replace(settings, listen="127.0.0.1:0", metrics_listen="127.0.0.1:0" if settings.metrics_listen else "")
    logging.configure(settings.service, "warning" if settings.log_level == "info" else settings.log_level)
    server = Server(definition, settings)
    await server.start()
    try:
        yield server
    finally:
        if not server.is_stopped:
            await server.stop()
