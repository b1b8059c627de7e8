"""Sends the parts of a blob to an object store, several at once, each again when it breaks off."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tuneforge._object_urls import SignedPart, StoreBrokeOff, StoreRefused, StoreUnreachable, put
from tuneforge._transport import Backoff, RetryPolicy
from tuneforge.errors import FailedPrecondition, Reason, Unavailable
from tuneforge.manifest import IntegrityError
from tuneforge.v1.blobs_pb2 import BlobPresigned

PARTS_AT_ONCE = 4
"""Parts sent at the same time: enough to fill a line that one connection does not."""

_WRONG_CONTENT = 400
_EXISTS = 412
_DENIED = 403
_GONE = 404


@dataclass
class Told:
    """How much of a file was told as moved: what is sent again is told once."""

    progress: Callable[[int], None]
    _positions: dict[int, int] = field(default_factory=dict)
    _total: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def part(self, number: int, position: int) -> None:
        """Notes that a part has come to a position."""
        with self._lock:
            self._positions[number] = max(position, self._positions.get(number, 0))
            self._tell(sum(self._positions.values()))

    def whole(self, position: int) -> None:
        """Notes that the file as a whole has come to a position."""
        with self._lock:
            self._tell(position)

    def _tell(self, total: int) -> None:
        if total > self._total:
            self.progress(total - self._total)
            self._total = total


def parts_to_send(presigned: BlobPresigned) -> list[SignedPart]:
    """Returns the parts that the store does not have."""
    return [
        SignedPart(part.number, part.offset, part.size_bytes, part.url, dict(part.headers))
        for part in presigned.parts
        if not part.is_stored
    ]


def send_parts(path: Path, parts: Sequence[SignedPart], told: Told, retry: RetryPolicy) -> bool:
    """Sends parts of a file.

    Args:
        path: The file.
        parts: Which pieces, and where to.
        told: Told what has moved.
        retry: How to go on when a part breaks off.

    Returns:
        Whether all are there; if not, URLs have ended, and access must be asked for again.

    Raises:
        StoreUnreachable: No connection can be made at all.
        IntegrityError: The store found another content than was announced.
        TuneforgeError: The store stayed away, or refuses.
        OSError: The file cannot be read.
    """
    if not parts:
        return True
    with ThreadPoolExecutor(min(PARTS_AT_ONCE, len(parts)), thread_name_prefix="tuneforge-part") as threads:
        running = [threads.submit(_send, path, part, told, retry) for part in parts]
        try:
            return all([each.result() for each in running])  # noqa: C419 - all of them end before URLs are asked for anew
        except BaseException:
            for each in running:
                each.cancel()
            raise


def _send(path: Path, part: SignedPart, told: Told, retry: RetryPolicy) -> bool:
    backoff = Backoff(retry)
    has_connected = False
    while True:
        position = 0

        def moved(count: int) -> None:
            nonlocal position
            position += count
            told.part(part.number, position)

        try:
            put(path, part, moved)
        except StoreRefused as refused:
            return _is_there(path, refused)
        except StoreUnreachable as error:
            if not has_connected:
                raise
            backoff.wait_or_raise(Unavailable(Reason.STORAGE_UNAVAILABLE, str(error)))
        except StoreBrokeOff as error:
            has_connected = True
            backoff.wait_or_raise(Unavailable(Reason.STORAGE_UNAVAILABLE, str(error)))
        else:
            return True


def _is_there(path: Path, refused: StoreRefused) -> bool:
    """Returns whether a part that was refused is stored, or false when its URL has ended."""
    if refused.status in {_DENIED, _GONE}:
        return False
    if refused.status == _WRONG_CONTENT:
        raise IntegrityError(str(path), "the content that was hashed", "a file that changed") from None
    if refused.status != _EXISTS:  # 412: an earlier try had arrived whole
        raise FailedPrecondition(Reason.STORAGE_MISCONFIGURED, str(refused)) from None
    return True
