"""Data sets and their versions as plain values; times are microseconds since 1970 in UTC."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tuneforge.data.shapes.names import RowShape
from tuneforge.manifest import Manifest
from tuneforge.names import DatasetName, DatasetVersionName


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A named set of rows that grows by versions."""

    name: DatasetName
    description: str
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    create_time_us: int
    creator: str
    latest: int = 0
    """Number of the newest version; 0 when there is none."""
    revision: int = 0
    """Grows by one with each change."""
    update_time_us: int | None = None
    """When it was changed; None: never."""

    @property
    def etag(self) -> str:
        """Changes with each change."""
        return f"r{self.revision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFilter:
    """Which data sets of a project are wanted."""

    tags: tuple[str, ...] = ()
    """All of these."""
    shape: RowShape | None = None
    """That of the newest version; None: any."""
    query: str = ""
    """Somewhere in the id or the description, in any case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetContent:
    """What was found in the files of a data set version."""

    manifest: Manifest
    shape: RowShape
    rows: int
    """How many there are, over all files."""
    split: str = ""
    """How rows are divided, in one way (`split_key`); empty: not."""
    record: bytes = b""
    """A `DatasetVersion` message with format, split, statistics and remarks; empty for old versions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetVersion:
    """One immutable state of a data set."""

    name: DatasetVersionName
    content: DatasetContent
    create_time_us: int
    creator: str


__all__ = ["Dataset", "DatasetContent", "DatasetFilter", "DatasetVersion", "RowShape"]
