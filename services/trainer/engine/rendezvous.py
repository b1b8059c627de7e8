"""How the processes of a gang find each other: a store that the first one hosts, then torch's process group.

The first process listens before anybody else is started, on a port that the system chose: nothing is guessed and
nothing raced for. Names in the store begin with the attempt, so that a straggler of an older attempt meets nobody.
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable
from datetime import timedelta

import psutil
import torch
import torch.distributed as dist

from services.trainer.engine.gang import ALONE, Gang
from services.trainer.engine.training_task import Fault, Seat, TrainingFault
from tuneforge.errors import Reason

_LOOK_S = 0.05
"""How often a process that waits for the others looks for them, and whether it is to stop."""


def listen(host: str) -> socket.socket:
    """Returns a socket on a free port of an address of this machine, or of all of them where `host` is none of it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for address in (host, ""):
        with contextlib.suppress(OSError):
            return socket.create_server((address, 0), family=family)
    raise OSError(f"no port can be listened on at {host}")


def join(seat: Seat | None, device: torch.device, check_stop: Callable[[], None]) -> Gang:
    """Returns the gang of a seat once all of its processes are there; it ends with this process.

    Args:
        seat: Place of this process; None: it trains alone.
        device: Where it computes.
        check_stop: Raises when this process is to stop; called while it waits.

    Raises:
        TrainingFault: GANG_BROKEN, when somebody does not come in time.
    """
    if seat is None:
        return ALONE
    store = _meet(seat, check_stop)
    # Numbers and words go through the CPU, weights and gradients through whatever the device has.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    _use_interface(seat)
    dist.init_process_group(
        backend, store=store, rank=seat.rank, world_size=seat.size, timeout=timedelta(seconds=seat.timeout_s)
    )
    # Never destroyed: that waits for gloo's threads, and one that lets go of a failed exchange waits for the lock of
    # the interpreter, which whoever destroys holds. The process is one attempt and ends without taking anything down.
    return Gang(seat.rank, seat.size)


def _meet(seat: Seat, check_stop: Callable[[], None]) -> dist.Store:
    end = time.monotonic() + seat.timeout_s
    store = dist.PrefixStore(seat.name, _open_store(seat, check_stop, end))
    store.set(f"here/{seat.rank}", b"1")
    everybody = [f"here/{rank}" for rank in range(seat.size)]
    while not store.check(everybody):
        _wait(seat, check_stop, end)
    return store


def _open_store(seat: Seat, check_stop: Callable[[], None], end: float) -> dist.TCPStore:
    host, port = seat.host_and_port
    limit = timedelta(seconds=seat.timeout_s)
    if seat.listening is not None:
        # The store closes the descriptor that it gets.
        descriptor = os.dup(seat.listening)
        return dist.TCPStore(
            host, port, None, is_master=True, timeout=limit, wait_for_workers=False, master_listen_fd=descriptor
        )
    while True:
        try:
            socket.create_connection((host, port), timeout=1.0).close()
        except OSError:
            _wait(seat, check_stop, end)
        else:
            return dist.TCPStore(host, port, None, is_master=False, timeout=limit, wait_for_workers=False)


def _wait(seat: Seat, check_stop: Callable[[], None], end: float) -> None:
    check_stop()
    if time.monotonic() > end:
        raise TrainingFault(
            Reason.GANG_BROKEN,
            f"Not all {seat.size} processes of the run were at {seat.address} within {seat.timeout_s:.0f} s.",
            "Look at the other nodes of the attempt, and whether they reach that address.",
            Fault.INFRASTRUCTURE,
            metadata={"rank": str(seat.rank), "address": seat.address},
        )
    time.sleep(_LOOK_S)


def _use_interface(seat: Seat) -> None:
    """Lets gloo and NCCL use the network that leads to the first process; by themselves they guess by host name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(seat.host_and_port)  # sends nothing: it only asks for the way
        own = probe.getsockname()[0]
        for name, addresses in psutil.net_if_addrs().items():
            if any(each.address == own for each in addresses):
                os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
                os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
                return
