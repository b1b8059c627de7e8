"""Writes and hashes bytes while the next ones travel: in a thread of its own, a few pieces behind."""

import queue
import threading
from types import TracebackType
from typing import BinaryIO, Protocol, Self

_PIECES_BEHIND = 8
"""Pieces that wait at most; with pieces of 1 MiB they bound the memory."""


class Hasher(Protocol):
    """What `hashlib` makes."""

    def update(self, data: bytes, /) -> None:
        """Takes more bytes."""


class HashingWriter:
    """A file that is written to; it and a hash of it are complete when the `with` block has ended."""

    def __init__(self, file: BinaryIO, hasher: Hasher) -> None:
        self._file = file
        self._hasher = hasher
        self._has_written = False
        self._queue: queue.Queue[bytes | None] | None = None
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def write(self, data: bytes) -> None:
        """Appends bytes.

        Raises:
            OSError: The disk refused these bytes or some before them; what the file holds is not all that was hashed.
        """
        if self._queue is None:
            # One piece is taken faster than a thread is started.
            if not self._has_written:
                self._has_written = True
                self._take(data)
                return
            self._queue = queue.Queue(_PIECES_BEHIND)
            self._thread = threading.Thread(target=self._work, args=(self._queue,), name="tuneforge-hash", daemon=True)
            self._thread.start()
        self._queue.put(data)
        if self._error is not None:
            raise self._error

    def _work(self, pieces: "queue.Queue[bytes | None]") -> None:
        while (piece := pieces.get()) is not None:
            if self._error is None:  # after one, pieces are only taken off the queue
                try:
                    self._take(piece)
                except Exception as error:  # noqa: BLE001 - the caller is told; without this thread it would wait for ever
                    self._error = error

    def _take(self, piece: bytes) -> None:
        self._file.write(piece)
        self._hasher.update(piece)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._queue is not None and self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        if kind is None and self._error is not None:
            raise self._error
