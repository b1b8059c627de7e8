"""Sees that a worker makes no progress: asks it what its threads do, tells whoever watches, and ends it at last.

The worker's own clock is its pulse (`pulse.py`). The stacks come from Python's faulthandler inside the worker, which
answers a signal even while the interpreter is held by a library; a process that is stopped answers nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from services.grpckit.logging import get_logger
from services.trainer import adoption
from services.trainer.adoption import ProcessIdentity
from services.trainer.folders import AttemptFolder
from services.trainer.pulse import DUMP_SIGNAL, silence_s

STACK_CHARACTERS = 16_000
"""The newest of a longer dump are kept."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """A worker that makes no progress."""

    since: float
    """Its last sign of progress, Unix time in seconds."""
    message: str
    """What is known of it, as a sentence."""
    stacks: str = ""
    """What each thread was doing; empty until it has answered."""


class StallWatch:
    """Looks after one worker; `look` at it now and then.

    Args:
        folder: The attempt's.
        worker: Its process.
        after_s: Seconds without progress after which it counts as stalled.
        ends_after_s: Seconds without progress after which it is ended.
    """

    def __init__(self, folder: AttemptFolder, worker: ProcessIdentity, after_s: float, ends_after_s: float) -> None:
        self._folder = folder
        self._worker = worker
        self._after_s = after_s
        self._ends_after_s = ends_after_s
        self._dump_from: int | None = None
        self._since = 0
        self.has_ended_it = False
        """Whether the worker was ended for its silence."""

    def look(self, *, last_step: int) -> Stall | None:
        """Returns the stall that there is now; the first time it asks for the stacks, and in the end ends the worker.

        Args:
            last_step: Last finished step of the attempt.
        """
        silent_s = silence_s(self._folder.pulse)
        if silent_s is None or silent_s < self._after_s:
            self._dump_from = None
            return None
        if self._dump_from is None:
            self._dump_from, self._since = _size(self._folder), round(time.time() - silent_s)
            adoption.signal_worker(self._worker, DUMP_SIGNAL)
        state = adoption.state_of(self._worker.pid)
        how = "its process is stopped by a signal" if state in ("T", "t") else "its process is alive"
        stall = Stall(
            since=self._since,
            message=f"no sign of progress for {self._after_s:g} s or more after step {last_step}; {how}",
            stacks=self._stacks(),
        )
        if silent_s >= self._ends_after_s and not self.has_ended_it:
            _log.warning("a worker is ended: it makes no progress", pid=self._worker.pid, silent_s=round(silent_s))
            self.has_ended_it = adoption.kill_session(self._worker)
        return stall

    def _stacks(self) -> str:
        try:
            with self._folder.stacks.open("rb") as file:
                file.seek(self._dump_from or 0)
                return file.read().decode(errors="replace")[-STACK_CHARACTERS:]
        except FileNotFoundError:
            return ""


def _size(folder: AttemptFolder) -> int:
    try:
        return folder.stacks.stat().st_size
    except FileNotFoundError:
        return 0
