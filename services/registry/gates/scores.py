"""Scores row by row: what `RecordEvaluation` keeps, as bytes and back, and the differences of two of them."""

import hashlib
import json
import math
import struct
from array import array
from collections.abc import Mapping
from dataclasses import dataclass

MOST_ROWS = 40_000
"""Rows of one evaluation: what fits into one message of 4 MiB."""
MOST_SLICES = 100
_DIGEST_BYTES = 32
_HEADER = struct.Struct(">II")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """One score a row, ordered by row id, and named parts of the rows."""

    row_ids: tuple[str, ...]
    """64 lower-case hexadecimal digits each, rising."""
    values: tuple[float, ...]
    slices: Mapping[str, tuple[int, ...]]
    """Label -> positions in `row_ids`, rising."""

    @classmethod
    def of(cls, row_ids: tuple[str, ...], values: tuple[float, ...], slices: Mapping[str, tuple[int, ...]]) -> "Scores":
        """Makes scores from rows in any order; equal content gives equal scores."""
        order = sorted(range(len(row_ids)), key=row_ids.__getitem__)
        place = {old: new for new, old in enumerate(order)}
        return cls(
            row_ids=tuple(row_ids[old] for old in order),
            values=tuple(values[old] for old in order),
            slices={label: tuple(sorted(place[old] for old in slices[label])) for label in sorted(slices)},
        )

    @property
    def mean(self) -> float:
        """Mean of all values."""
        return math.fsum(self.values) / len(self.values)

    def to_bytes(self) -> bytes:
        """Returns the canonical bytes."""
        slices = json.dumps(self.slices, separators=(",", ":")).encode()
        numbers = array("d", self.values)
        if struct.pack("=d", 1.0) != struct.pack("<d", 1.0):
            numbers.byteswap()
        ids = bytes.fromhex("".join(self.row_ids))
        return _HEADER.pack(len(self.row_ids), len(slices)) + slices + ids + numbers.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Scores":
        """Reads what `to_bytes` wrote."""
        rows, size = _HEADER.unpack_from(data)
        begin = _HEADER.size + size
        end = begin + rows * _DIGEST_BYTES
        ids = data[begin:end]
        return cls(
            row_ids=tuple(ids[at : at + _DIGEST_BYTES].hex() for at in range(0, len(ids), _DIGEST_BYTES)),
            values=struct.unpack(f"<{rows}d", data[end:]),
            slices={label: tuple(places) for label, places in json.loads(data[_HEADER.size : begin]).items()},
        )

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical bytes."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def rows_digest(self) -> str:
        """SHA-256 over row ids and slices: what two evaluations must share to be compared."""
        zeros = Scores(row_ids=self.row_ids, values=(0.0,) * len(self.values), slices=self.slices)
        return hashlib.sha256(zeros.to_bytes()).hexdigest()


def differences(version: Scores, champion: Scores, *, lower_is_better: bool) -> list[float]:
    """Returns by how much the version is better, row by row; both must have the same rows."""
    sign = -1.0 if lower_is_better else 1.0
    return [sign * (new - old) for new, old in zip(version.values, champion.values, strict=True)]
