"""Versions of data sets as plain values; times are microseconds since 1970 in UTC."""

from dataclasses import dataclass
from enum import StrEnum

from tuneforge.manifest import Manifest
from tuneforge.names import DatasetVersionName


class RowShape(StrEnum):
    """What the rows of a data set look like; the values are those of the contract without their prefix."""

    MESSAGES = "MESSAGES"
    PROMPT_COMPLETION = "PROMPT_COMPLETION"
    INSTRUCTION = "INSTRUCTION"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetContent:
    """What was found in the files of a data set version."""

    manifest: Manifest
    shape: RowShape
    rows: int
    """How many there are, over all files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetVersion:
    """One immutable state of a data set."""

    name: DatasetVersionName
    content: DatasetContent
    create_time_us: int
    creator: str
