"""A proxy of our own in front of the real S3 server, that breaks what a test asks it to break.

    with faulty_proxy(bucket) as proxy:
        proxy.faults = [Fault("GET", kind="truncate")]       # each fault is used up by one request that it fits
        registry with s3=bucket.settings(endpoint=proxy.endpoint)

Requests pass with their own `Host`, so that signatures made for the proxy hold.
"""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

from tests.support.patience import TEST_LIMIT_S
from tests.support.seaweedfs import Bucket

Kind = Literal["status", "hang", "truncate", "flip", "reset"]
_HOP_HEADERS = {"connection", "transfer-encoding", "content-length", "keep-alive"}


@dataclass
class Fault:
    """What happens to requests instead of an answer."""

    method: str = ""
    """Only requests of this method; empty: all."""
    part: str = ""
    """Only requests whose target has this text in it."""
    kind: Kind = "status"
    """`status` answers with one; `hang` answers nothing; `truncate` sends half a body; `flip` turns its last byte over;
    `reset` closes the connection."""
    status: int = 503
    code: str = "SlowDown"
    times: int = 1
    """How many requests it meets."""

    def fits(self, method: str, target: str) -> bool:
        """Returns whether a request is met."""
        return self.times > 0 and self.method in {"", method} and self.part in target


@dataclass
class Proxy:
    """A running proxy."""

    endpoint: str
    upstream: str
    faults: list[Fault] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    """Method and target of each request."""
    moved_bytes: int = 0
    """Bytes of bodies that passed, both ways."""
    ending: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take_fault(self, method: str, target: str) -> Fault | None:
        """Notes a request and returns what is to happen to it."""
        with self.lock:
            self.seen.append((method, target))
            fault = next((each for each in self.faults if each.fits(method, target)), None)
            if fault is not None:
                fault.times -= 1
            return fault


@contextmanager
def faulty_proxy(bucket: Bucket) -> Iterator[Proxy]:
    """Serves a proxy in front of a bucket's server while the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    proxy = Proxy(f"http://127.0.0.1:{server.server_port}", urlsplit(bucket.endpoint).netloc)
    server.proxy = proxy  # type: ignore[attr-defined]
    server.daemon_threads = True
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    serving.start()
    try:
        yield proxy
    finally:
        proxy.ending.set()
        server.shutdown()
        server.server_close()
        serving.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _pass(self) -> None:
        proxy: Proxy = self.server.proxy  # type: ignore[attr-defined]
        fault = proxy.take_fault(self.command, self.path)
        if fault is not None and fault.kind == "hang":
            proxy.ending.wait()
        if fault is not None and fault.kind in {"hang", "reset"}:
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault is not None and fault.kind == "status":
            text = f"<Error><Code>{fault.code}</Code><Message>made up</Message></Error>".encode()
            self._answer(fault.status, {"Content-Type": "application/xml"}, text)
            return
        upstream = http.client.HTTPConnection(proxy.upstream, timeout=TEST_LIMIT_S)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            content = answer.read()
            with proxy.lock:
                proxy.moved_bytes += len(body) + len(content)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self._answer(answer.status, dict(answer.getheaders()), content, length=length, fault=fault)
        finally:
            upstream.close()

    def _answer(
        self,
        status: int,
        headers: dict[str, str],
        body: bytes,
        *,
        length: str | None = None,
        fault: Fault | None = None,
    ) -> None:
        if fault is not None and fault.kind == "flip" and body:
            body = body[:-1] + bytes([body[-1] ^ 1])
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in _HOP_HEADERS:
                self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault is not None and fault.kind == "truncate":
            body = body[: len(body) // 2]
            self.close_connection = True
        with suppress(OSError):
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass  # noqa: N815 - names that http.server asks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is that of http.server
        """Says nothing."""
