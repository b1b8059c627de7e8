"""Which keys occur more than once, exactly and in bounded memory: they are put into buckets, on disk when many.

A key is kept as 16 bytes of its SHA-256, so that two different keys are never taken for one.
"""

import hashlib
import struct
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Final, Self

_RECORD: Final = struct.Struct(">16sIQ")
_BUCKETS: Final = 256
_HELD_BYTES: Final = 16 * 2**20
"""Bytes of records that are held before they go to disk."""


class Repeats:
    """Collects keys with their places and finds those that occur again; use it in a `with` block."""

    def __init__(self, held_bytes: int = _HELD_BYTES) -> None:
        self._buffers = [bytearray() for _ in range(_BUCKETS)]
        self._files: list[IO[bytes]] | None = None
        self._left = self._held_bytes = held_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files or []:
            file.close()

    def add_digest(self, digest: bytes, file: int, line: int) -> None:
        """Adds a key by at least 16 bytes of its digest.

        Args:
            digest: of the key.
            file: number of the file that it stands in.
            line: its line.
        """
        self._buffers[digest[0]] += _RECORD.pack(digest[:16], file, line)
        self._left -= _RECORD.size
        if self._left < 0:
            self._spill()

    def add(self, key: str, file: int, line: int) -> None:
        """Adds a key."""
        self.add_digest(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest(), file, line)

    def found(self) -> Iterator[tuple[int, int, int, int]]:
        """Yields (file, line, file of the first, line of the first) for every key that was there before."""
        for number in range(_BUCKETS):
            first: dict[bytes, tuple[int, int]] = {}
            for digest, file, line in _RECORD.iter_unpack(self._bucket(number)):
                if digest in first:
                    yield file, line, *first[digest]
                else:
                    first[digest] = (file, line)

    def count(self) -> int:
        """Returns how many keys were there before."""
        return sum(1 for _ in self.found())

    def _bucket(self, number: int) -> bytes:
        if self._files is None:
            return bytes(self._buffers[number])
        self._files[number].seek(0)
        return self._files[number].read() + self._buffers[number]

    def _spill(self) -> None:
        if self._files is None:
            self._files = [tempfile.TemporaryFile() for _ in range(_BUCKETS)]  # noqa: SIM115 - closed by __exit__
        for file, buffer in zip(self._files, self._buffers, strict=True):
            file.seek(0, 2)
            file.write(buffer)
            buffer.clear()
        self._left = self._held_bytes
