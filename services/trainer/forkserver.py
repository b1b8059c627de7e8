"""The fork server: one process that imports the slow libraries once and forks a worker for each attempt.

It has one thread, never computes, and never imports grpc or initialises CUDA: a parent that ran one parallel region of
OpenMP makes every child hang, and neither gRPC nor CUDA survives a fork. Workers lead sessions of their own, so they
outlive it and its agent. When the agent is gone (the socket ends) it ends too; the next agent starts a new one.

Protocol, one JSON object a packet. In: `{"fork": id, "folder": path}`. Out: `{"ready": seconds, "threads": n}`,
`{"forked": id, "pid": n}`, `{"refused": id, "error": text}`, `{"exited": pid, "status": code, -signal when killed}`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKET_BYTES = 64 * 1024
EXIT_PRELOAD_FAILED = 3

Job = Callable[[Path], int]
"""What a worker does with the folder of its attempt; returns its exit code."""


class ForkServer:
    """Forks on request until the agent's end of the socket is closed."""

    def __init__(self, control: socket.socket, job: Job) -> None:
        self._control = control
        self._job = job
        self._wakeup_read, self._wakeup_write = os.pipe()
        os.set_blocking(self._wakeup_read, False)
        os.set_blocking(self._wakeup_write, False)

    def serve(self) -> None:
        """Answers requests and reports ends."""
        signal.set_wakeup_fd(self._wakeup_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler, so that the wake-up descriptor is written
        while True:
            readable, _, _ = select.select([self._control.fileno(), self._wakeup_read], [], [])
            if self._wakeup_read in readable:
                self._report_exits()
            if self._control.fileno() in readable:
                packet = self._control.recv(PACKET_BYTES)
                if not packet:
                    return
                self._fork(json.loads(packet))

    def send(self, message: dict[str, Any]) -> None:
        """Tells the agent; when it is gone, the end of the socket is seen in `serve`."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._control.send(json.dumps(message).encode())

    def _fork(self, request: dict[str, Any]) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            self.send({"refused": request["fork"], "error": str(error)})
            return
        if pid == 0:
            self._become_worker(Path(request["folder"]))
        self.send({"forked": request["fork"], "pid": pid})

    def _become_worker(self, folder: Path) -> None:
        """Runs the job in the child, and never returns."""
        code = 1
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for descriptor in (self._wakeup_read, self._wakeup_write):
                os.close(descriptor)
            self._control.close()
            random.seed()  # else all workers would wait the same "random" times
            code = self._job(folder)
        except BaseException:  # noqa: BLE001 - whatever it was, the child must not go on as a second fork server
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _report_exits(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wakeup_read, 4096):
                pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.send({"exited": pid, "status": os.waitstatus_to_exitcode(status)})


def main(argv: list[str]) -> int:
    """Runs the fork server.

    Args:
        argv: Descriptor of the socket (SOCK_SEQPACKET), then `module:function` of the preload, then that of the job.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the agent's to handle
    control = socket.socket(fileno=int(argv[0]))
    control.set_inheritable(False)
    begin = time.monotonic()
    gc.disable()  # nearly all that an import makes stays: to look through it again and again finds nothing
    try:
        find(argv[1])()
        job = find(argv[2])
    except Exception:  # noqa: BLE001 - the agent shows the end of the log
        traceback.print_exc()
        return EXIT_PRELOAD_FAILED
    gc.collect()
    gc.freeze()  # what is loaded stays; a collection in a child need not touch, and so copy, its pages
    gc.enable()
    server = ForkServer(control, job)
    server.send({"ready": time.monotonic() - begin, "threads": threads()})
    server.serve()
    return 0


def find(place: str) -> Callable[..., Any]:
    """Returns the function that `module:function` names."""
    module, _, name = place.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def threads() -> int:
    """Returns how many threads this process has, those of libraries too."""
    try:
        return len(list(Path("/proc/self/task").iterdir()))
    except OSError:
        return threading.active_count()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
