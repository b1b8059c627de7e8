"""Which process is an attempt's worker, after anything may have been restarted.

A pid alone says nothing: pids are used again. A process is known by its pid, the tick of its start and the boot that
the tick counts from. A zombie is dead: in a container without an init nobody may ever collect it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

_PROC = Path("/proc")
_POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """Names one process for ever."""

    pid: int
    """Its number; also that of its session."""
    start_ticks: int
    """When it started, in clock ticks since the boot."""
    boot_id: str
    """The boot; empty on a machine that does not say."""

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ProcessIdentity:
        """Reads what `to_json` gave."""
        return cls(pid=int(content["pid"]), start_ticks=int(content["start_ticks"]), boot_id=str(content["boot_id"]))


NOBODY = ProcessIdentity(pid=0, start_ticks=0, boot_id="")
"""Stands for a worker that never was: the agent itself has ended the attempt."""


def boot_id() -> str:
    """Returns the id of this boot of the machine; empty when it cannot be read."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def identify(pid: int) -> ProcessIdentity | None:
    """Returns the identity of a living process, `None` when there is none or it is a zombie."""
    stat = _read_stat(pid)
    if stat is None or stat[0] in "ZX":
        return None
    return ProcessIdentity(pid=pid, start_ticks=stat[1], boot_id=boot_id())


def is_alive(identity: ProcessIdentity) -> bool:
    """Tells whether exactly this process is still running."""
    return identity.pid > 0 and identify(identity.pid) == identity


def open_pidfd(identity: ProcessIdentity) -> int | None:
    """Opens a descriptor that becomes readable when the process ends; `None` when it has ended.

    Raises:
        OSError: This machine gives no such descriptors; poll `is_alive` instead.
    """
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    # Checked after opening: now the pid cannot be used again without the descriptor telling.
    if not is_alive(identity):
        os.close(descriptor)
        return None
    return descriptor


class ProcessEnd:
    """Watches for the end of a process from the event loop, while entered.

    `has_ended` turns true, and `tell` is called once, when the process has ended, also as a zombie.
    """

    def __init__(self, identity: ProcessIdentity, tell: Callable[[], None]) -> None:
        self.has_ended = False
        self._identity = identity
        self._tell = tell
        self._descriptor: int | None = None
        self._poll: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        try:
            self._descriptor = open_pidfd(self._identity)
        except (OSError, AttributeError):  # an old kernel
            self._look()
            return self
        if self._descriptor is None:
            self.has_ended = True
        else:
            asyncio.get_running_loop().add_reader(self._descriptor, self._end)
        return self

    def __exit__(self, *_: object) -> None:
        if self._poll is not None:
            self._poll.cancel()
        self._close()

    def _look(self) -> None:
        if is_alive(self._identity):
            self._poll = asyncio.get_running_loop().call_later(_POLL_S, self._look)
        else:
            self._end()

    def _end(self) -> None:
        self._close()
        self.has_ended = True
        self._tell()

    def _close(self) -> None:
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None


def state_of(pid: int) -> str:
    """Returns the state of a process as one letter of proc(5), e.g. `T` for one stopped by a signal; empty: none."""
    stat = _read_stat(pid)
    return "" if stat is None else stat[0]


def signal_worker(identity: ProcessIdentity, number: signal.Signals) -> bool:
    """Signals the process; false when it has ended."""
    if not is_alive(identity):
        return False
    try:
        os.kill(identity.pid, number)
    except ProcessLookupError:
        return False
    return True


def kill_session(identity: ProcessIdentity) -> bool:
    """Ends the process and its process group at once; false when it has ended."""
    if not is_alive(identity):
        return False
    try:
        # The worker leads a group of its own, so its pid names the group.
        os.killpg(identity.pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _read_stat(pid: int) -> tuple[str, int] | None:
    """Returns (state, start tick) of a process."""
    try:
        content = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The second field is the command's name in brackets and may hold anything, brackets and blanks too.
    fields = content.rpartition(")")[2].split()
    return fields[0], int(fields[19])
