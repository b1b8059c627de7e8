"""A proxy in front of PostgreSQL that cuts a connection at its next commit: before the server hears of it, or after."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum

from tests.support.patience import TEST_LIMIT_S

COMMIT = b"COMMIT"


class Cut(Enum):
    """Where a connection is cut."""

    BEFORE = "before the commit reaches the server"
    AFTER = "after the server has committed, before its answer is heard"


@dataclass(frozen=True, slots=True, eq=False)
class _Link:
    """A client's connection and ours to the server for it."""

    client: socket.socket
    server: socket.socket
    deaf: threading.Event = field(default_factory=threading.Event)
    """Nothing goes back to the client any more."""
    answered: threading.Event = field(default_factory=threading.Event)
    """The server has answered to what the client will not hear of."""


class CuttingProxy:
    """Listens on loopback and passes bytes on; cuts once for each call of `cut_next`.

    Args:
        port: Port of the server on loopback.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._next: Cut | None = None
        self.cuts = 0
        """Connections cut so far."""
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def cut_next(self, where: Cut) -> None:
        """Cuts the next connection that commits."""
        self._next = where

    def close(self) -> None:
        """Ends it and all connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server_port))
            link = _Link(client, server)
            self._open |= {client, server}
            threading.Thread(target=self._pass_on, args=(link,), daemon=True).start()
            threading.Thread(target=self._pass_back, args=(link,), daemon=True).start()

    def _pass_on(self, link: _Link) -> None:
        """Passes what the client says; from the commit that is to be cut on, the client hears nothing any more."""
        while data := _received(link.client):
            if self._next is not None and COMMIT in data:
                where, self._next = self._next, None
                self.cuts += 1
                link.deaf.set()
                if where is Cut.AFTER:
                    link.server.sendall(data)
                    link.answered.wait(TEST_LIMIT_S)
                break
            with suppress(OSError):
                link.server.sendall(data)
        self._end(link)

    def _pass_back(self, link: _Link) -> None:
        while data := _received(link.server):
            if link.deaf.is_set():
                link.answered.set()  # the commit has happened, and only we know
                return
            with suppress(OSError):
                link.client.sendall(data)
        self._end(link)

    def _end(self, link: _Link) -> None:
        for each in (link.client, link.server):
            self._open.discard(each)
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def _received(from_: socket.socket) -> bytes:
    try:
        return from_.recv(65536)
    except OSError:
        return b""
