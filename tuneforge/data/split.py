"""On which side of a train/validation split a row lies: decided by its id and a seed alone.

So a row keeps its side when rows are put in another order or others are added, and equal rows lie on one side.
"""

import dataclasses
import enum
import hashlib
from typing import Final

LARGEST_RATIO: Final = 0.5
"""Validation never takes more than half of the rows."""


class Side(enum.StrEnum):
    """What a row is for."""

    TRAIN = "TRAIN"
    VALIDATION = "VALIDATION"
    TEST = "TEST"
    """Kept apart: neither learned nor measured during a run."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """How rows are divided."""

    validation_ratio: float = 0.0
    """Share of the distinct rows that is for validation, 0 (none) to 0.5."""
    seed: int = 0
    """Another seed gives another division, 0 to 2**63 - 1."""


def is_in_share(row_id: str, share: float, seed: int) -> bool:
    """Returns whether a row belongs to a share of the rows; a smaller share lies within a larger one.

    Args:
        row_id: 64 hexadecimal digits.
        share: of the distinct rows, 0 (none) to 1 (all).
        seed: another seed gives another share, 0 to 2**64 - 1. Independent of the seed of a split.
    """
    digest = hashlib.blake2b(
        bytes.fromhex(row_id), digest_size=8, key=seed.to_bytes(8, "big"), person=b"share"
    ).digest()
    return int.from_bytes(digest, "big") < share * 2.0**64


def side_of(row_id: str, split: Split) -> Side:
    """Returns the side of a row.

    Args:
        row_id: 64 hexadecimal digits.
        split: how rows are divided.
    """
    if not split.validation_ratio:
        return Side.TRAIN
    digest = hashlib.blake2b(bytes.fromhex(row_id), digest_size=8, key=split.seed.to_bytes(8, "big")).digest()
    return Side.VALIDATION if int.from_bytes(digest, "big") < split.validation_ratio * 2.0**64 else Side.TRAIN
