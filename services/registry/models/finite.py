"""Finds weights that are no finite numbers, in a stream and without numpy or torch.

A float is not finite when all bits of its exponent are set. In little-endian order the exponent's high bits lie in the
last byte of each number, so a strided slice gives one byte a number, and a search for the few values that are possible
there runs at the speed of memory. Only where one is found are the numbers themselves looked at.
"""

from collections.abc import Mapping
from pathlib import Path

PIECE_BYTES = 1024 * 1024
"""Bytes read at once; with the slices beside it, about twice of it is held."""

# Number format -> (bytes of one number, high bytes that a number with a full exponent may have).
_SUSPICIOUS: Mapping[str, tuple[int, bytes]] = {
    "F64": (8, bytes([0x7F, 0xFF])),
    "F32": (4, bytes([0x7F, 0xFF])),
    "BF16": (2, bytes([0x7F, 0xFF])),
    "F16": (2, bytes([*range(0x7C, 0x80), *range(0xFC, 0x100)])),
    "F8_E5M2": (1, bytes([*range(0x7C, 0x80), *range(0xFC, 0x100)])),
    "F8_E4M3": (1, bytes([0x7F, 0xFF])),
}
# Where the exponent goes on in the byte below: the bits that must be set too.
_NEXT_BYTE = {"F64": 0xF0, "F32": 0x80, "BF16": 0x80}


def first_non_finite(path: Path, begin: int, end: int, dtype: str) -> int | None:
    """Returns the index of the first number of a tensor that is infinite or not a number; None when all are finite.

    Args:
        path: The file.
        begin: Where the tensor's bytes begin in the file.
        end: Where they end.
        dtype: As safetensors names it; formats without such numbers (integers) are always finite.
    """
    if dtype not in _SUSPICIOUS:
        return None
    width, high_bytes = _SUSPICIOUS[dtype]
    with path.open("rb") as file:
        file.seek(begin)
        position = begin
        while position < end:
            piece = file.read(min(PIECE_BYTES, end - position))
            if not piece:
                return (position - begin) // width  # cut off since its header was read: not what it said
            found = _find(piece, width, high_bytes, _NEXT_BYTE.get(dtype, 0))
            if found is not None:
                return (position - begin) // width + found
            position += len(piece)
    return None


def _find(piece: bytes, width: int, high_bytes: bytes, next_bits: int) -> int | None:
    high = piece[width - 1 :: width] if width > 1 else piece
    hits = [value for value in high_bytes if value in high]
    if not hits:
        return None
    places = sorted(place for value in hits for place in _places(high, value))
    return next(
        (place for place in places if not next_bits or piece[place * width + width - 2] & next_bits == next_bits), None
    )


def _places(high: bytes, value: int) -> list[int]:
    places, place = [], high.find(value)
    while place >= 0:
        places.append(place)
        place = high.find(value, place + 1)
    return places
