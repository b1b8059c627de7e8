"""Many clients that read from one registry at once: reads a second, and the processor time of the server for each.

Clients are processes with a connection each, which they ask again and again; what they need of the processor themselves
is in the reads a second, since they run on the same machine, and is not in the time of the server.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path

CLIENTS = 8
START_LIMIT_S = 120.0

Ask = Callable[[int], object]
"""Reads something of a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one kind of read costs under many clients."""

    reads_per_s: float
    server_ms: float
    """Processor time of the server and its workers for one read, in milliseconds."""


def measure(connect: Callable[[], Ask], server_pid: int, *, models: int, reads: int) -> Load:
    """Lets all clients read at once.

    Args:
        connect: Makes what a client asks with, in the client's process; it and what it holds are pickled.
        server_pid: The server's process; its children count too.
        models: How many models there are.
        reads: Of each client.
    """
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(CLIENTS + 1)
    clients = [
        context.Process(target=_read, args=(connect, barrier, models, reads, number)) for number in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    barrier.wait(START_LIMIT_S)  # each has asked once
    began, cpu_began = time.perf_counter(), cpu_seconds(server_pid)
    barrier.wait(START_LIMIT_S)
    for client in clients:
        client.join()
    wall_s, cpu_s = time.perf_counter() - began, cpu_seconds(server_pid) - cpu_began
    if any(client.exitcode for client in clients):
        raise RuntimeError("a client of the benchmark failed")
    return Load(reads_per_s=CLIENTS * reads / wall_s, server_ms=cpu_s * 1e3 / (CLIENTS * reads))


def _read(connect: Callable[[], Ask], barrier: Barrier, models: int, reads: int, number: int) -> None:
    ask, chance = connect(), random.Random(number)
    ask(number)
    barrier.wait(START_LIMIT_S)
    barrier.wait(START_LIMIT_S)
    for _ in range(reads):
        ask(chance.randrange(models))


def cpu_seconds(pid: int) -> float:
    """Returns the processor time that a process and its children have used, those that have ended among them."""
    parents, used = {}, {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        one = int(entry.parent.name)
        parents[one] = int(fields[1])
        used[one] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def is_below(one: int) -> bool:
        while one not in {pid, 0}:
            one = parents.get(one, 0)
        return one == pid

    return sum(seconds for one, seconds in used.items() if is_below(one))
