"""Ports on loopback for servers that are to listen at an address which is known before they start."""

from __future__ import annotations

import random
import socket

METRICS_OFFSET = 10
"""A service offers `/metrics` so many ports above its own."""
_FIRST_PORT, _LAST_PORT = 10_000, 12_000  # the S3 server looks for its own above them
_held: list[int] = []
"""Descriptors, which nobody closes before this process ends."""


def free_ports(count: int) -> list[int]:
    """Returns ports that nobody listens on, each with the one for its metrics.

    While this process lives they are given to nobody else, in other processes neither: it holds the same numbers of
    UDP, which are of no use to a server here. They are below those that the system gives to clients and for port 0.

    Raises:
        OSError: So many are not free.
    """
    found: list[int] = []
    candidates = [port for port in range(_FIRST_PORT, _LAST_PORT) if port // METRICS_OFFSET % 2 == 0]
    for port in random.sample(candidates, len(candidates)):
        holder = socket.socket(type=socket.SOCK_DGRAM)
        try:
            holder.bind(("127.0.0.1", port))
            for number in (port, port + METRICS_OFFSET):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
        except OSError:
            holder.close()
            continue
        _held.append(holder.detach())
        found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"ports {_FIRST_PORT} to {_LAST_PORT} of this machine are taken; end what listens there")
