"""A small file server over TLS for tests, that counts what is asked and breaks off where it is told to."""

import hashlib
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from tests.support.certificates import Certificates
from tests.support.patience import TEST_LIMIT_S


@dataclass
class FileServer:
    """What it serves, and what it was asked."""

    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    """Path -> content."""
    statuses: dict[str, int] = field(default_factory=dict)
    """Path -> status that it answers instead."""
    redirects: dict[str, str] = field(default_factory=dict)
    """Path -> where it sends to."""
    breaks: dict[str, int] = field(default_factory=dict)
    """Path -> bytes after which the next answer to a GET breaks off, once."""
    held: dict[str, threading.Event] = field(default_factory=dict)
    """Path -> what the second half of an answer waits for."""
    is_silent_on_size: bool = False
    """Whether it says no Content-Length."""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """(method, path with query, Range header)."""
    authorizations: list[str] = field(default_factory=list)
    """Authorization headers that came."""

    @property
    def host(self) -> str:
        """`localhost:<port>`, as an operator's list names it."""
        return f"localhost:{self.port}"

    def url(self, path: str) -> str:
        """Returns the address of a path."""
        return f"https://{self.host}{path}"


@contextmanager
def serving_files(certificates: Certificates) -> Iterator[FileServer]:
    """Serves while the block runs, on loopback and a port of its own."""
    state = FileServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.cert, certificates.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: ClassVar[FileServer]
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._serve(is_head=True)

    def do_GET(self) -> None:
        self._serve(is_head=False)

    def _serve(self, *, is_head: bool) -> None:
        path = self.path.partition("?")[0]
        self.state.authorizations += self.headers.get_all("Authorization", [])
        self.state.asked.append((self.command, self.path, self.headers.get("Range", "")))
        content = self.state.files.get(path)
        if path in self.state.redirects:
            self._plain(302, Location=self.state.redirects[path])
        elif path in self.state.statuses or content is None:
            self._plain(self.state.statuses.get(path, 404))
        else:
            self._content(path, content, is_head=is_head)

    def _content(self, path: str, content: bytes, *, is_head: bool) -> None:
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        start = 0
        asked = self.headers.get("Range", "").removeprefix("bytes=").removesuffix("-")
        if asked and self.headers.get("If-Range") in {None, etag}:
            start = int(asked)
        self.send_response(206 if start else 200)
        self.send_header("ETag", etag)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.state.is_silent_on_size:
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if is_head:
            return
        rest = content[start:]
        if path in self.state.breaks:
            self.wfile.write(rest[: self.state.breaks.pop(path)])
            self.wfile.flush()
            self.close_connection = True
            return
        half = len(rest) // 2
        self.wfile.write(rest[:half])
        self.wfile.flush()
        if path in self.state.held:
            self.state.held[path].wait(TEST_LIMIT_S)
        self.wfile.write(rest[half:])

    def _plain(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""
