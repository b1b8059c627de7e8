"""The event spool of one attempt: dense, append-only, on disk, written by one process and read by another.

A spool is a folder of segments named by the number of their first event. A segment is a magic word and records; a
record is its length, the CRC-32 of its bytes and the bytes of one `Event`, numbered by its place. A record goes out
with one `os.write`, so it survives `kill -9` of the writer at once; `sync` (once a second, each 64 KB, at checkpoints
and at the end) makes it survive the machine. Only acknowledged segments are removed, and only whole.

The worker is the only writer (the agent is its heir once it is dead). What an event is, is decided in `events.py`.
"""

from __future__ import annotations

import bisect
import itertools
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from services.trainer.folders import sync_folder

MAGIC = b"TFSPOOL1"
SEGMENT_BYTES = 256 * 1024
"""Size at which a segment is closed; acknowledging frees disk in steps of this."""
LIMIT_BYTES = 256 * 1024 * 1024
"""Most bytes of a spool; about a million step events."""
SYNC_BYTES = 64 * 1024
"""Unsynced bytes that a power cut may take."""
MAX_RECORD_BYTES = 1024 * 1024
"""Largest event; well below the 4 MiB of a gRPC message."""

# Share of the limit at which a kind stops. What is not named here is never dropped: it is the run's history.
_STOPS_AT = {"device": 0.9, "sample": 1.0, "log": 1.0}
# Share of the limit below which a stopped kind goes on; the distance keeps it from starting and stopping in turns.
_GOES_ON_BELOW = 0.75
_BALLAST = "ballast"
_BALLAST_BYTES = 64 * 1024
_HEADER = struct.Struct("<II")
_SUFFIX = ".spool"

MakeGap = Callable[[int, int, str], bytes]
"""Makes the bytes of a Gap event from its number, the count of dropped events and their kind."""


class SpoolGone(Exception):
    """The events that were asked for are no longer in the spool."""

    def __init__(self, oldest_seq: int) -> None:
        super().__init__(f"the oldest event in the spool is {oldest_seq}")
        self.oldest_seq = oldest_seq


@dataclass(frozen=True, slots=True)
class Record:
    """One event in a spool."""

    seq: int
    """Its number, dense from 1."""
    payload: bytes
    """A serialised `Event`."""


def segments(folder: Path) -> list[tuple[int, Path]]:
    """Returns the segments of a spool as (number of the first event, path), oldest first."""
    try:
        return sorted((int(path.stem), path) for path in folder.iterdir() if path.suffix == _SUFFIX)
    except FileNotFoundError:
        return []


def drop_acknowledged(folder: Path, seq: int) -> None:
    """Removes the segments whose events all have numbers up to `seq`; the newest segment always stays."""
    found = segments(folder)
    for (_, path), (next_first, _) in itertools.pairwise(found):
        if next_first <= seq + 1:
            path.unlink(missing_ok=True)


class SpoolWriter:
    """Appends to a spool; may be used from several threads.

    Opening goes on after the last whole record: a torn one, left by a power cut, is cut off.
    """

    def __init__(
        self,
        folder: Path,
        *,
        make_gap: MakeGap,
        limit_bytes: int = LIMIT_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._folder = folder
        self._make_gap = make_gap
        self._limit = limit_bytes
        self._segment_limit = segment_bytes
        self._lock = threading.Lock()
        self._dropped: dict[str, int] = {}
        self._unsynced = 0
        self._last_scan_s = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        _write_ballast(folder / _BALLAST)
        found = segments(folder)
        if found:
            first, path = found[-1]
            self._fd, self._size, self._next = _recover(path, first)
        else:
            self._next = 1
            self._fd, self._size = self._create()
        self._used = self._scan()

    @property
    def last_seq(self) -> int:
        """Number of the newest event; 0: none."""
        return self._next - 1

    def append(self, kind: str, make: Callable[[int], bytes]) -> int | None:
        """Writes one event and returns its number, or `None` when the spool is full and the kind may be dropped.

        Args:
            kind: Field name in `Event.payload`.
            make: Gives the event's bytes, at most 1 MiB, for its number.

        Raises:
            OSError: The disk is full and the kind may not be dropped; nothing was written.
        """
        with self._lock:
            if self._is_stopped(kind):
                self._dropped[kind] = self._dropped.get(kind, 0) + 1
                return None
            try:
                self._write_gaps(is_last=kind == "outcome")
                return self._write(make(self._next))
            except OSError:
                if kind in _STOPS_AT:
                    self._dropped[kind] = self._dropped.get(kind, 0) + 1
                    return None
                if not self._throw_ballast():
                    raise
                return self._write(make(self._next))

    def sync(self) -> None:
        """Makes everything written so far survive a power cut."""
        with self._lock:
            self._sync()

    def close(self) -> None:
        """Syncs and closes the spool; no append may follow."""
        with self._lock:
            self._sync()
            os.close(self._fd)

    def _sync(self) -> None:
        if self._unsynced:
            os.fsync(self._fd)
            self._unsynced = 0

    def _is_stopped(self, kind: str) -> bool:
        share = _STOPS_AT.get(kind)
        if share is None:
            return False
        if kind in self._dropped:
            share = min(share, _GOES_ON_BELOW)
        if self._used < share * self._limit:
            return False
        # The agent removes acknowledged segments; looked up at most ten times a second, and only when it matters.
        now = time.monotonic()
        if now - self._last_scan_s >= 0.1:
            self._last_scan_s = now
            self._used = self._scan()
        return self._used >= share * self._limit

    def _write_gaps(self, *, is_last: bool) -> None:
        for kind in list(self._dropped):
            if is_last or not self._is_stopped(kind):
                self._write(self._make_gap(self._next, self._dropped[kind], kind))
                del self._dropped[kind]

    def _write(self, payload: bytes) -> int:
        if not 0 < len(payload) <= MAX_RECORD_BYTES:
            raise ValueError(f"an event of {len(payload)} bytes; 1 to {MAX_RECORD_BYTES} are allowed")
        if self._size >= self._segment_limit:
            self._rotate()
        record = _HEADER.pack(len(payload), zlib.crc32(payload)) + payload
        written = os.write(self._fd, record)
        if written < len(record):
            os.ftruncate(self._fd, self._size)
            raise OSError(28, "no space left for an event", str(self._folder))
        self._size += written
        self._used += written
        self._unsynced += written
        self._next += 1
        if self._unsynced >= SYNC_BYTES:
            self._sync()
        return self._next - 1

    def _rotate(self) -> None:
        fd, size = self._create()
        self._sync()
        os.close(self._fd)
        self._fd, self._size = fd, size

    def _create(self) -> tuple[int, int]:
        path = self._folder / f"{self._next:020d}{_SUFFIX}"
        temporary = path.with_suffix(".new")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        if os.write(fd, MAGIC) < len(MAGIC):
            os.close(fd)
            raise OSError(28, "no space left for a segment", str(path))
        temporary.rename(path)
        sync_folder(self._folder)
        return fd, len(MAGIC)

    def _scan(self) -> int:
        return sum(_size_of(path) for _, path in segments(self._folder))

    def _throw_ballast(self) -> bool:
        """Frees the space that was kept back for the last events of a run on a full disk."""
        try:
            (self._folder / _BALLAST).unlink()
        except OSError:
            return False
        return True


class SpoolReader:
    """Reads a spool from a number on, also while it is being written; a torn last record is not read."""

    def __init__(self, folder: Path, *, after_seq: int = 0) -> None:
        self._folder = folder
        self._next = after_seq + 1
        self._fd = -1
        self._offset = 0

    @property
    def position(self) -> int:
        """Number of the last event that was read."""
        return self._next - 1

    def read(
        self, *, up_to_seq: int | None = None, limit: int = 500, max_bytes: int = MAX_RECORD_BYTES
    ) -> list[Record]:
        """Returns the next events, none when there are no more yet.

        Args:
            up_to_seq: Last number to return.
            limit: Most events.
            max_bytes: Bytes after which no further event is added.

        Raises:
            SpoolGone: The next event was acknowledged and removed.
        """
        records: list[Record] = []
        size = 0
        while len(records) < limit and size < max_bytes and (up_to_seq is None or self._next <= up_to_seq):
            if self._fd < 0 and not self._open():
                break
            room = limit - len(records) if up_to_seq is None else min(limit - len(records), up_to_seq + 1 - self._next)
            chunk = os.pread(self._fd, MAX_RECORD_BYTES + _HEADER.size, self._offset)
            found = 0
            for payload in _payloads(chunk):
                records.append(Record(self._next, payload))
                self._next += 1
                self._offset += _HEADER.size + len(payload)
                size += len(payload)
                found += 1
                if found >= room or size >= max_bytes:
                    break
            if not found and not self._advance(is_waiting=not records):
                break
        return records

    def close(self) -> None:
        """Closes the open segment."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> bool:
        """Finds the segment that has the next event, and the place of that event in it."""
        found = segments(self._folder)
        if not found:
            return False
        index = bisect.bisect_right([first for first, _ in found], self._next) - 1
        if index < 0:
            raise SpoolGone(found[0][0])
        first, path = found[index]
        try:
            self._fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # acknowledged between the listing and now
            raise SpoolGone(first + 1) from None
        self._offset = len(MAGIC)
        seq = first
        while seq < self._next:
            skipped = 0
            for payload in _payloads(os.pread(self._fd, MAX_RECORD_BYTES + _HEADER.size, self._offset)):
                self._offset += _HEADER.size + len(payload)
                seq += 1
                skipped += 1
                if seq == self._next:
                    break
            if not skipped:
                self.close()
                return False
        return True

    def _advance(self, *, is_waiting: bool) -> bool:
        """Goes over to the next segment; false when the open one is the newest.

        Raises:
            SpoolGone: `is_waiting`, and the next segment was removed; else what was read goes out first.
        """
        if self._offset == len(MAGIC):
            return False
        if not (self._folder / f"{self._next:020d}{_SUFFIX}").exists():
            # A segment without a name was acknowledged; only closed segments are, so the next one was too.
            if is_waiting and os.fstat(self._fd).st_nlink == 0 and (found := segments(self._folder)):
                raise SpoolGone(found[0][0])
            return False
        self.close()
        return self._open()


def _payloads(chunk: bytes) -> Iterator[bytes]:
    """Gives the whole records at the beginning of a chunk, up to the first one that is torn or damaged."""
    at = 0
    while at + _HEADER.size <= len(chunk):
        length, checksum = _HEADER.unpack_from(chunk, at)
        end = at + _HEADER.size + length
        # A power cut may leave zeros: a length of 0 is no record.
        if not 0 < length <= MAX_RECORD_BYTES or end > len(chunk):
            return
        payload = chunk[at + _HEADER.size : end]
        if zlib.crc32(payload) != checksum:
            return
        yield payload
        at = end


def _recover(path: Path, first: int) -> tuple[int, int, int]:
    """Opens a segment for appending and cuts off a torn record; returns (descriptor, size, next number)."""
    fd = os.open(path, os.O_RDWR | os.O_APPEND)
    size, seq = len(MAGIC), first
    while chunk := os.pread(fd, MAX_RECORD_BYTES + _HEADER.size, size):
        before = seq
        for payload in _payloads(chunk):
            size += _HEADER.size + len(payload)
            seq += 1
        if seq == before:
            break
    if os.fstat(fd).st_size != size:
        os.ftruncate(fd, size)
        os.fsync(fd)
    return fd, size, seq


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # acknowledged meanwhile
        return 0


def _write_ballast(path: Path) -> None:
    try:
        if not path.exists():
            path.write_bytes(os.urandom(_BALLAST_BYTES))
    except OSError:
        path.unlink(missing_ok=True)
