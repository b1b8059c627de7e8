"""What makes two rows the same row: the SHA-256 of their content, written in one way only.

Content is what a row means, not how its file spells it (`shapes.py`): the same row in JSONL, CSV and Parquet, with or
without columns that nobody reads, has the same id.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

SHORT_ID: Final = 12
"""Digits of an id that people are shown."""

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical_json(value: Any) -> str:
    """Returns a JSON value as text in one way only: keys sorted, no white space, characters as they are.

    Raises:
        ValueError: it holds NaN or an infinity.
        TypeError: it is no JSON value.
    """
    return _ENCODER.encode(value)


def row_id(content: Mapping[str, Any]) -> str:
    """Returns the id of a row: 64 hexadecimal digits.

    Raises:
        UnicodeEncodeError: a text holds half of a surrogate pair.
    """
    return hashlib.sha256(_ENCODER.encode(content).encode()).hexdigest()


def id_of_bytes(raw: bytes) -> str:
    """Returns the id of a row that cannot be read: that of its bytes."""
    return hashlib.sha256(raw.strip()).hexdigest()


def short(identity: str) -> str:
    """Returns the digits of an id that people are shown."""
    return identity[:SHORT_ID]
