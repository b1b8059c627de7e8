"""Moves bytes to and from an object store by presigned URLs, with what comes with Python.

A URL is a permission: it gets into no text, no log and no exception of this module.
"""

import contextlib
import http.client
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

_CONNECT_TIMEOUT_S = 5.0
_IDLE_TIMEOUT_S = 60.0
"""Seconds without a byte after which a request is given up."""
PIECE_BYTES = 1024 * 1024


class StoreUnreachable(Exception):
    """No connection to the store could be made; the registry can be reached all the same."""


class StoreBrokeOff(Exception):
    """A request ended in the middle, or the store asks for patience: trying again may help."""


class StoreRefused(Exception):
    """The store answered with a status that says no.

    Attributes:
        status: HTTP status.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"the object store answered with status {status}")
        self.status = status


@dataclass(frozen=True, slots=True)
class SignedPart:
    """A piece of a file and the URL that moves it."""

    number: int
    offset: int
    size_bytes: int
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


@dataclass
class _Slice:
    """A part of a file, read for a request; tells what has gone."""

    file: BinaryIO
    left: int
    moved: Callable[[int], None]

    def read(self, size: int = -1) -> bytes:
        """Returns the next bytes."""
        piece = self.file.read(min(self.left, PIECE_BYTES if size < 0 else size))
        self.left -= len(piece)
        if piece:
            self.moved(len(piece))
        return piece


def put(path: Path, part: SignedPart, moved: Callable[[int], None]) -> None:
    """Sends a piece of a file.

    Args:
        path: The file.
        part: Which piece, and where to.
        moved: Told the bytes given to the network, piece by piece.

    Raises:
        StoreUnreachable, StoreBrokeOff, StoreRefused: It is not there.
        OSError: The file cannot be read.
    """
    with path.open("rb", buffering=0) as file, _connection(part.url) as (connection, target):
        file.seek(part.offset)
        body = _Slice(file, part.size_bytes, moved)
        headers = dict(part.headers) | {"Content-Length": str(part.size_bytes)}
        with _faults():
            # A store that refuses does not read the rest; what it says comes next.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request("PUT", target, body=body, headers=headers)
            answer = connection.getresponse()
            answer.read()
        _check(answer.status)


def get(part: SignedPart, offset: int) -> Iterator[bytes]:
    """Yields the bytes of a blob from an offset.

    Raises:
        StoreUnreachable, StoreBrokeOff, StoreRefused: It broke off, or never began.
    """
    with _connection(part.url) as (connection, target):
        with _faults():
            headers = dict(part.headers) | ({"Range": f"bytes={offset}-"} if offset else {})
            connection.request("GET", target, headers=headers)
            answer = connection.getresponse()
        if answer.status != (206 if offset else 200):
            _check(answer.status)
            raise StoreBrokeOff("the object store does not give ranges")
        left = part.size_bytes - offset
        while left:
            with _faults():
                piece = answer.read(min(PIECE_BYTES, left))
            if not piece:
                raise StoreBrokeOff("the object store ended early")
            left -= len(piece)
            yield piece


@contextlib.contextmanager
def _connection(url: str) -> Iterator[tuple[http.client.HTTPConnection, str]]:
    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    host = parts.hostname or ""
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(
            host, parts.port, timeout=_CONNECT_TIMEOUT_S, context=context, blocksize=PIECE_BYTES
        )
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=_CONNECT_TIMEOUT_S, blocksize=PIECE_BYTES)
    try:
        try:
            connection.connect()
        except OSError as error:
            raise StoreUnreachable(f"the object store at {parts.netloc} is not reached: {error}") from None
        connection.sock.settimeout(_IDLE_TIMEOUT_S)
        yield connection, f"{parts.path}?{parts.query}"
    finally:
        connection.close()


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise StoreBrokeOff(f"the connection to the object store broke off: {type(error).__name__}") from None


def _check(status: int) -> None:
    if status >= 500 or status in {408, 409, 429}:
        raise StoreBrokeOff(f"the object store answered with status {status}")
    if status >= 300:
        raise StoreRefused(status)
