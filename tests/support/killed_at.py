"""Runs a service that kills itself at its n-th step on disk.

    with killed_at(5, "services.registry", settings, log) as service:
        ...                    # calls at `service.address`
        service.arm()          # from here on steps are counted
        ...                    # a call that breaks off
        service.expect_killed()

A step is what a crash may come before or after: a file opened for writing, renamed or removed, a folder made, a sync to
disk, a commit (before and after it). Each one is told in the log. A test goes through n = 1, 2, ... until nothing is
left to kill.

The services are forked from one process that has imported them: to import them takes longer than all that they then do.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from sqlalchemy.engine.default import DefaultDialect

from tests.support.patience import TEST_LIMIT_S

SERVICES = ("services.registry", "services.scheduler")
LIMIT_S = TEST_LIMIT_S
"""Seconds after which a service that should have died has not."""

FORKS = get_context("forkserver")
"""Processes that begin with everything imported."""
FORKS.set_forkserver_preload([__name__, *(f"{service}.__main__" for service in SERVICES)])

_CHANGES = frozenset({"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"})
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True, slots=True)
class Mortal:
    """A service that dies at its step."""

    process: ForkServerProcess
    address: str
    """`host:port` that it takes calls at."""

    def arm(self) -> None:
        """Begins to count."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGUSR1)

    def expect_killed(self) -> None:
        """Waits for its end; fails when that was another one than the step's."""
        self.process.join(LIMIT_S)
        assert self.process.exitcode == -signal.SIGKILL


@contextmanager
def killed_at(step: int, service: str, settings: Mapping[str, str], log: Path) -> Iterator[Mortal]:
    """Runs a service until the block ends, or until it comes to a step.

    Args:
        step: Number of the step at which it dies, from 1; 0: never.
        service: Its module, one of `SERVICES`.
        settings: Environment on top of ours.
        log: File that its standard error is added to.
    """
    hearing, saying = FORKS.Pipe(duplex=False)
    environment = {**os.environ, **settings}
    process = FORKS.Process(target=_run, args=(step, service, environment, log, saying))
    with hearing:
        process.start()
        saying.close()
        try:
            with open(hearing.fileno(), closefd=False) as output:
                line = output.readline()
            assert line, log.read_text()
            yield Mortal(process, line.split(" listening on ")[1].split()[0])
        finally:
            process.kill()
            process.join()
            process.close()


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


def _run(kill_at: int, service: str, environment: dict[str, str], log: Path, saying: Connection) -> None:
    """Serves, in the forked process, until the step or SIGTERM."""
    os.environ.clear()
    os.environ.update(environment)
    with log.open("ab") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    os.dup2(saying.fileno(), sys.stdout.fileno())
    saying.close()
    steps = _Steps(kill_at)
    signal.signal(signal.SIGUSR1, steps.arm)
    _count(steps)
    sys.exit(asyncio.run(importlib.import_module(f"{service}.__main__").main()))
