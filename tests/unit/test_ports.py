"""A port that is given away is given to nobody else, whoever listens there and wherever he asks."""

import os
import socket

import pytest

from services.stores import ports


def test_a_port_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held, it can be listened on and is not given again; given back, it is, unless its metrics have no place."""
    (port,) = ports.free_ports(1)
    monkeypatch.setattr(ports, "_FIRST_PORT", port)
    monkeypatch.setattr(ports, "_LAST_PORT", port + 1)
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))
    with pytest.raises(OSError, match="are taken"):
        ports.free_ports(1)
    os.close(ports._held.pop())
    with socket.socket() as other:
        other.bind(("127.0.0.1", port + ports.METRICS_OFFSET))
        with pytest.raises(OSError, match="are taken"):
            ports.free_ports(1)
    assert ports.free_ports(1) == [port]
