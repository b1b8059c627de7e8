"""Writes and hashes the same bytes at the same time: the hash runs in a thread of its own, a few pieces behind."""

import queue
import threading
from types import TracebackType
from typing import BinaryIO, Protocol, Self

_PIECES_BEHIND = 8
"""Pieces that wait for the hash at most; with pieces of 1 MiB they bound the memory."""


class Hasher(Protocol):
    """What `hashlib` makes."""

    def update(self, data: bytes, /) -> None:
        """Takes more bytes."""


class HashingWriter:
    """A file that is written to, and a hash that is complete when the `with` block has ended."""

    def __init__(self, file: BinaryIO, hasher: Hasher) -> None:
        self._file = file
        self._hasher = hasher
        self._has_written = False
        self._queue: queue.Queue[bytes | None] | None = None
        self._thread: threading.Thread | None = None

    def write(self, data: bytes) -> None:
        """Appends bytes.

        Raises:
            OSError: The disk refused; what the file holds may be less than what was hashed.
        """
        if self._queue is None:
            # One piece is hashed faster than a thread is started.
            if not self._has_written:
                self._has_written = True
                self._file.write(data)
                self._hasher.update(data)
                return
            self._queue = queue.Queue(_PIECES_BEHIND)
            self._thread = threading.Thread(target=self._hash, args=(self._queue,), name="tuneforge-hash", daemon=True)
            self._thread.start()
        self._queue.put(data)
        self._file.write(data)

    def _hash(self, pieces: "queue.Queue[bytes | None]") -> None:
        while (piece := pieces.get()) is not None:
            self._hasher.update(piece)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._queue is not None and self._thread is not None:
            self._queue.put(None)
            self._thread.join()
