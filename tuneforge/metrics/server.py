"""Answers `GET /metrics` on a port of this machine, for a command that follows a job."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from tuneforge.metrics.exposition import CONTENT_TYPE

LOOPBACK = "127.0.0.1"
"""Only this machine is answered, as the page has no protection of its own; `ssh -L` brings it elsewhere."""


class PortInUse(Exception):
    """Somebody else listens on the port."""

    def __init__(self, port: int) -> None:
        super().__init__(f"port {port} is in use, choose another")
        self.port = port


class MetricsServer:
    """Shows a page until it is left; use it with `with`. `write` is called in other threads."""

    def __init__(self, port: int, write: Callable[[], str]) -> None:
        """Takes the port at once, so that a busy one is known before anything else begins.

        Args:
            port: 1 to 65535; 0 takes any free one.
            write: Returns the page.

        Raises:
            PortInUse: Somebody else listens there; no other port is taken in its stead, for nobody would look there.
        """

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                is_found = self.path.partition("?")[0] == "/metrics"
                body = write().encode() if is_found else b"see /metrics\n"
                self.send_response(200 if is_found else 404)
                self.send_header("Content-Type", CONTENT_TYPE if is_found else "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
                """Says nothing: what a scraper asks each few seconds is no news."""

        try:
            self._server = ThreadingHTTPServer((LOOPBACK, port), Handler)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortInUse(port) from None
            raise
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://{LOOPBACK}:{self._server.server_address[1]}/metrics"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the port back; closing twice is fine."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
