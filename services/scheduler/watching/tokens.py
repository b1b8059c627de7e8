"""Resume tokens of streams over many things: where a reader stands, opaque to it and checked when it comes back."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
import zlib
from dataclasses import dataclass

_FORM = struct.Struct(">BQQQQ")
_CHECK = struct.Struct(">I")
_VERSION = 16
"""Apart from those of `resume.py`, whose tokens are of one job."""


class BadToken(ValueError):
    """The text is no token of this stream."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reader stands in the order of all changes."""

    change: int
    """Number of the newest change that it has, or that the snapshot it reads is of."""
    number: int = 0
    """Number of the last job that it has of that change; of a snapshot that is not read to its end: of the snapshot."""
    is_snapshot: bool = False
    """Whether it still reads the snapshot."""


def scope_of(*parts: str) -> int:
    """Returns the number that stands for what a token is good for: database, parent, filter."""
    return int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:8], "big")


def write_place(scope: int, place: Place) -> str:
    """Returns the token of a place."""
    body = _FORM.pack(_VERSION, scope, place.change, place.number, place.is_snapshot)
    return base64.urlsafe_b64encode(body + _CHECK.pack(zlib.crc32(body))).decode().rstrip("=")


def read_place(text: str, scope: int) -> Place:
    """Returns the place in a token.

    Raises:
        BadToken: it is malformed, damaged, or of another stream.
    """
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadToken("it is not one that this method gave") from error
    if len(raw) != _FORM.size + _CHECK.size:
        raise BadToken("it is not one that this method gave")
    body, (check,) = raw[: _FORM.size], _CHECK.unpack(raw[_FORM.size :])
    version, owner, change, number, is_snapshot = _FORM.unpack(body)
    if check != zlib.crc32(body) or version != _VERSION:
        raise BadToken("it is not one that this method gave")
    if owner != scope:
        raise BadToken("it was given for another parent, filter or database")
    return Place(int(change), int(number), bool(is_snapshot))
