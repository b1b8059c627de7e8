"""A worker's pulse: when it last did something, in a file that the agent reads while the worker writes.

A beat costs one store into shared memory, so there is one for each micro-batch. The file tells of a worker that is
stopped, or hangs inside a library, exactly as of one that waits for a lock.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import time
from pathlib import Path

DUMP_SIGNAL = signal.SIGUSR1
"""Makes a worker write down what its threads do."""
_FORMAT = struct.Struct("<q")
_RESTING = 0


class Pulse:
    """The writing end; one a process."""

    def __init__(self, path: Path) -> None:
        """Makes the file; nobody waits for a beat before the first one."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(descriptor, _FORMAT.size)
            self._map = mmap.mmap(descriptor, _FORMAT.size)
        finally:
            os.close(descriptor)
        self.rest()

    def beat(self) -> None:
        """Notes that something was done; the next beat is waited for from now on."""
        _FORMAT.pack_into(self._map, 0, time.monotonic_ns())

    def rest(self) -> None:
        """Notes that no beat is to be waited for."""
        _FORMAT.pack_into(self._map, 0, _RESTING)


def silence_s(path: Path) -> float | None:
    """Returns the seconds since the last beat; `None` when no beat is to be waited for.

    The clock is that of the machine since its boot, the same in every process.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(content) != _FORMAT.size:
        return None
    (beat_ns,) = _FORMAT.unpack(content)
    return None if beat_ns == _RESTING else max(0.0, (time.monotonic_ns() - beat_ns) / 1e9)
