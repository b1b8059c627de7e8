"""One process per data folder.

A lock lives as long as its process: the kernel drops it at any end, `kill -9` included, so nothing has to be cleaned
up. What is in the folder is not looked at here; `database.py` takes the lock before it opens its file.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

LOCK_NAME = ".lock"


class StartRefused(Exception):
    """The service must not start; the text is one clear line for stderr."""

    exit_code = 78
    """Something has to be changed first."""


class StartDelayed(StartRefused):
    """The service cannot start yet, for no fault of its settings; the same start may work later."""

    exit_code = 75


class FolderLocked(StartRefused):
    """Another process holds the data folder."""


class FolderLock:
    """An exclusive lock on a folder, held until `release` or the end of the process.

    It is not passed on to programs that this process starts; a child made by a bare fork shares it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Takes the lock, making the folder when it is missing.

        Raises:
            FolderLocked: another process holds it.
            StartRefused: the folder cannot be made or written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self._folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartRefused(
                f"data folder {self._folder} cannot be used ({error.strerror}); "
                "make it writable, or set TUNEFORGE_DATA to another folder"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            who = f"process {holder}" if holder else "another process"
            raise FolderLocked(
                f"data folder {self._folder} is in use by {who}; stop it, or set TUNEFORGE_DATA to another folder"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Gives the lock back; the file stays, since removing it would race with the next holder."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
