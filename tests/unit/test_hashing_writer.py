"""The writer of downloads: what it wrote is what it hashed, and a disk that refuses is told to the caller."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

import pytest

from tuneforge._hashing_writer import Hasher, HashingWriter

PIECES = [os.urandom(1000 + number) for number in range(40)]


def fill(file: BinaryIO, count: int, hasher: Hasher) -> None:
    """Writes some pieces."""
    with HashingWriter(file, hasher) as writer:
        for piece in PIECES[:count]:
            writer.write(piece)


@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_all_pieces_are_written_and_hashed_in_order(tmp_path: Path, count: int) -> None:
    """When the block has ended, file and hash are complete."""
    with (tmp_path / "file").open("wb") as file:
        fill(file, count, hasher := hashlib.sha256())
    whole = b"".join(PIECES[:count])
    assert (tmp_path / "file").read_bytes() == whole
    assert hasher.digest() == hashlib.sha256(whole).digest()


@pytest.mark.parametrize("count", [1, 2, 40])
def test_a_full_disk_is_told(count: int) -> None:
    """Whichever piece it is that the disk refuses, the caller hears of it before the block has ended."""
    with Path("/dev/full").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        fill(file, count, hashlib.sha256())


class _Tired:
    """A hash that fails at its third piece."""

    pieces = 0

    def update(self, data: bytes, /) -> None:
        """Takes a piece."""
        self.pieces += 1
        if self.pieces == 3:
            raise MemoryError(f"no room for {len(data)} bytes")


def test_any_fault_of_the_thread_is_told(tmp_path: Path) -> None:
    """Also one that is none of the disk's: nobody waits for a thread that has ended."""
    with (tmp_path / "file").open("wb") as file, pytest.raises(MemoryError):
        fill(file, len(PIECES), _Tired())
