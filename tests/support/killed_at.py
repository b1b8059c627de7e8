"""Runs a service that kills itself at its n-th step on disk: `python -m tests.support.killed_at 5 services.registry`.

A step is what a crash may come before or after: a file opened for writing, renamed or removed, a folder made, a sync to
disk, a commit (before and after it). Steps are counted from the signal SIGUSR1 on, so that a test decides what is
counted; each one is told on stderr. A test goes through n = 1, 2, ... until nothing is left to kill.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from sqlalchemy.engine.default import DefaultDialect

_CHANGES = frozenset({"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"})
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class _Steps:
    """Counts, and ends the process."""

    def __init__(self, kill_at: int) -> None:
        self._left = kill_at
        self._is_armed = False

    def arm(self, *_signal: object) -> None:
        self._is_armed = True

    def take(self, what: str) -> None:
        if not self._is_armed:
            return
        self._left -= 1
        os.write(2, f"step {what}\n".encode())
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _count(steps: _Steps) -> None:
    """Makes every step of this process known."""

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES):
            steps.take(f"{event} {arguments[0]}")

    sync: Callable[[int], None] = os.fsync
    commit: Callable[[DefaultDialect, Any], None] = DefaultDialect.do_commit

    def counted_sync(descriptor: int) -> None:
        steps.take("fsync")
        sync(descriptor)

    def counted_commit(dialect: DefaultDialect, connection: Any) -> None:
        steps.take("before commit")
        commit(dialect, connection)
        steps.take("after commit")

    os.fsync = counted_sync  # type: ignore[assignment]
    DefaultDialect.do_commit = counted_commit  # type: ignore[method-assign]
    sys.addaudithook(audit)


def run() -> None:
    """Serves until the step or SIGTERM."""
    kill_at, service = int(sys.argv[1]), sys.argv[2]
    steps = _Steps(kill_at)
    signal.signal(signal.SIGUSR1, steps.arm)
    _count(steps)
    sys.exit(asyncio.run(importlib.import_module(f"{service}.__main__").main()))


if __name__ == "__main__":
    run()
