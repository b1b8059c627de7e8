"""Prometheus: the counters of every gRPC method, under the names of go-grpc-prometheus, and the page that shows them.

A service adds its own metrics with `prometheus_client` as usual (the default registry); `/metrics` shows both.
"""

import asyncio
import time
from dataclasses import dataclass, field

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

_LABELS = ("grpc_type", "grpc_service", "grpc_method")
_UNARY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_STREAM_BUCKETS_S = (1.0, 10.0, 60.0, 300.0, 1800.0, 3600.0, 4 * 3600.0, 24 * 3600.0)
_LOOP_PERIOD_S = 0.5
_HEAD_TIMEOUT_S = 5.0

# A time stamp for each series would double the page, and go's servers do not have it.
disable_created_metrics()  # type: ignore[no-untyped-call]


class MethodMetrics:
    """The metrics of one method, with their labels bound once: a lookup a call would cost as much as the rest."""

    def __init__(self, metrics: "ServerMetrics", kind: str, service: str, method: str) -> None:
        labels = (kind, service, method)
        self._handled = metrics.handled
        self._labels = labels
        self._by_code: dict[str, Counter] = {}
        self._started = metrics.started.labels(*labels)
        self._running = metrics.running.labels(*labels)
        self._duration = (metrics.unary_seconds if kind == "unary" else metrics.stream_seconds).labels(*labels)
        self.received = metrics.received.labels(*labels).inc
        """Counts a message received."""
        self.sent = metrics.sent.labels(*labels).inc
        """Counts a message sent."""

    def start(self) -> None:
        """Counts a call that began."""
        self._started.inc()
        self._running.inc()

    def end(self, code: str, seconds: float) -> None:
        """Counts a call that ended.

        Args:
            code: Its gRPC code in go's spelling: `OK`, `NotFound`.
            seconds: How long it took.
        """
        counter = self._by_code.get(code)
        if counter is None:
            counter = self._by_code[code] = self._handled.labels(*self._labels, code)
        counter.inc()
        self._running.dec()
        self._duration.observe(seconds)


@dataclass(frozen=True, slots=True)
class ServerMetrics:
    """The gRPC metrics of one server, in a registry of their own, so that one process may hold several servers."""

    registry: CollectorRegistry = field(default_factory=lambda: CollectorRegistry(auto_describe=False))
    started: Counter = field(init=False)
    handled: Counter = field(init=False)
    received: Counter = field(init=False)
    sent: Counter = field(init=False)
    running: Gauge = field(init=False)
    unary_seconds: Histogram = field(init=False)
    stream_seconds: Histogram = field(init=False)
    loop_delay: Gauge = field(init=False)

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        registry = self.registry
        put("started", Counter("grpc_server_started", "RPCs started.", _LABELS, registry=registry))
        put("handled", Counter("grpc_server_handled", "RPCs completed.", (*_LABELS, "grpc_code"), registry=registry))
        put("received", Counter("grpc_server_msg_received", "Messages received.", _LABELS, registry=registry))
        put("sent", Counter("grpc_server_msg_sent", "Messages sent.", _LABELS, registry=registry))
        put("running", Gauge("grpc_server_running", "RPCs running now.", _LABELS, registry=registry))
        put(
            "unary_seconds",
            Histogram(
                "grpc_server_handling_seconds",
                "Time from the start of a unary RPC to its end.",
                _LABELS,
                registry=registry,
                buckets=_UNARY_BUCKETS_S,
            ),
        )
        put(
            "stream_seconds",
            Histogram(
                "grpc_server_stream_seconds",
                "Time that a stream was open.",
                _LABELS,
                registry=registry,
                buckets=_STREAM_BUCKETS_S,
            ),
        )
        put(
            "loop_delay",
            Gauge("tuneforge_event_loop_delay_seconds", "How late the event loop woke a sleeper.", registry=registry),
        )

    def page(self) -> bytes:
        """Returns what `/metrics` shows: these, and those of the process."""
        return generate_latest(self.registry) + generate_latest(REGISTRY)

    async def measure_loop(self) -> None:
        """Measures for ever how late the event loop runs: above some 0.1 s, something blocks it."""
        while True:
            due = time.monotonic() + _LOOP_PERIOD_S
            await asyncio.sleep(_LOOP_PERIOD_S)
            self.loop_delay.set(max(0.0, time.monotonic() - due))


async def serve_page(metrics: ServerMetrics, host: str, port: int) -> asyncio.Server:
    """Answers `GET /metrics` over HTTP; nothing else is there.

    Raises:
        OSError: The address cannot be bound.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _HEAD_TIMEOUT_S)
            parts = head.split(b"\r\n", 1)[0].split(b" ")
            is_found = len(parts) == 3 and parts[0] == b"GET" and parts[1].partition(b"?")[0] == b"/metrics"
            body = metrics.page() if is_found else b"see /metrics\n"
            writer.write(
                (
                    f"HTTP/1.1 {'200 OK' if is_found else '404 Not Found'}\r\n"
                    f"Content-Type: {CONTENT_TYPE_PLAIN_0_0_4 if is_found else 'text/plain'}\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                ).encode()
                + body
            )
            await asyncio.wait_for(writer.drain(), _HEAD_TIMEOUT_S)
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a scraper that went away or never spoke HTTP
        finally:
            writer.close()

    return await asyncio.start_server(answer, host, port, limit=8192)
