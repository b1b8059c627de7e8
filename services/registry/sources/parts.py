"""A file while it arrives: bytes at the end of a part that a later try goes on with, hashed and counted on the way."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from services.registry.sources.faults import Code, SourceFault
from services.registry.sources.wanted import Entry

CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Arrived:
    """A file that is whole."""

    place: Path
    sha256: str
    size_bytes: int


@dataclass
class Allowance:
    """Bytes that one import may still bring."""

    left_bytes: int
    """0 or less at the beginning: no limit."""
    is_limited: bool = True

    def take(self, num_bytes: int) -> None:
        """Counts bytes that arrive.

        Raises:
            SourceFault: TOO_LARGE.
        """
        self.left_bytes -= num_bytes
        if self.is_limited and self.left_bytes < 0:
            raise SourceFault(Code.TOO_LARGE, "it is larger than the operator allows; nothing more was fetched")


class Part:
    """The part of one file in the staging folder.

    Args:
        folder: Staging folder of the import.
        entry: The file.
        allowance: What the import may still bring.
    """

    def __init__(self, folder: Path, entry: Entry, allowance: Allowance) -> None:
        name = hashlib.sha256(entry.path.encode()).hexdigest()[:32]
        self.path = folder / f"{name}.part"
        self._tag_path = folder / f"{name}.tag"
        self._allowance = allowance
        self.entry = entry

    @property
    def held_bytes(self) -> int:
        """Bytes of an earlier try that can be gone on with; 0 when the file at the place is another one by now."""
        try:
            is_same = self.entry.tag and self._tag_path.read_text(encoding="utf-8") == self.entry.tag
            size = self.path.stat().st_size
        except OSError:
            return 0
        return size if is_same and not 0 < self.entry.size_bytes < size else 0

    def fill(self, chunks: Iterable[bytes], offset: int, tell: Callable[[int], None]) -> Arrived:
        """Writes the bytes from an offset on and returns the whole file.

        Args:
            chunks: The bytes, in pieces.
            offset: Of the first byte that comes: `held_bytes`, or 0 when the place sends all again.
            tell: Told how many bytes are there.

        Raises:
            SourceFault: TOO_LARGE; UNAVAILABLE when fewer or more bytes came than the place said.
        """
        hasher = hashlib.sha256()
        if offset:
            with self.path.open("rb") as held:
                while piece := held.read(CHUNK_BYTES):
                    hasher.update(piece)
        self._tag_path.write_text(self.entry.tag, encoding="utf-8")
        self._allowance.take(offset)
        done = offset
        with self.path.open("ab" if offset else "wb") as file:
            for chunk in chunks:
                self._allowance.take(len(chunk))
                file.write(chunk)
                hasher.update(chunk)
                done += len(chunk)
                tell(done)
        if self.entry.size_bytes and done != self.entry.size_bytes:
            if done > self.entry.size_bytes:
                self.path.unlink()
            raise SourceFault(
                Code.UNAVAILABLE, f"{self.entry.path} ended after {done} of {self.entry.size_bytes} bytes"
            )
        digest = hasher.hexdigest()
        if self.entry.sha256 and digest != self.entry.sha256:
            self.path.unlink()
            raise SourceFault(
                Code.UNAVAILABLE, f"{self.entry.path} arrived damaged: its digest is not the one the place names"
            )
        return Arrived(self.path, digest, done)


def allowance_of(largest_bytes: int) -> Allowance:
    """Returns what an import may bring.

    Args:
        largest_bytes: 0: no limit.
    """
    return Allowance(largest_bytes, is_limited=largest_bytes > 0)
