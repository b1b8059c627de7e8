"""What goes into a reading of rows, and what comes out."""

import dataclasses
import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from tuneforge.data.problems import RowFault, RowProblem, Severity
from tuneforge.data.shapes import RowShape

MIB: Final = 2**20


class DataFormat(enum.StrEnum):
    """How rows are written; the values are those of the contract's `DataFormat` without its prefix."""

    JSONL = "JSONL"
    """One JSON object a line."""
    JSON = "JSON"
    """One JSON array of objects, or objects that are spread over lines."""
    CSV = "CSV"
    """A table with a header; the delimiter is found out."""
    PARQUET = "PARQUET"
    TEXT = "TEXT"
    """Plain text: a paragraph a row, or a line a row where no line is blank."""
    IMAGES = "IMAGES"
    """A folder of images: the folder that an image lies in is its label."""
    ARROW = "ARROW"
    """Arrow files, as Hugging Face's `save_to_disk` writes them."""


@dataclasses.dataclass(frozen=True, slots=True)
class DataFile:
    """One file of a data set."""

    path: str
    """Path in the data set, with `/`; its end tells the format."""
    local: Path
    """Where its bytes are; may be named otherwise."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a reader takes."""

    row_bytes: int = 4 * MIB
    """Largest row: far above any that fits a context window, far below what would hurt a service that checks it."""
    columns: int = 1000
    """Most columns of a table."""
    decompressed_bytes: int = 64 * 1024 * MIB
    """Largest content of a compressed file."""
    decompression_ratio: int = 200
    """Largest content over the compressed file, once the content is above 64 MiB; text shrinks by 3 to 20."""
    files: int = 100_000
    """Most files of a data set."""
    pixels: int = 100_000_000
    """Largest image, width times height."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ParsedRow:
    """One row, or what is wrong where a row should be.

    Without `content` it is no row and only carries its problems: a row that cannot be read, or something to say about a
    file as a whole.
    """

    row_id: str
    """SHA-256 of the content, 64 hexadecimal digits; of the bytes for a row that cannot be read; empty for what
    concerns a file as a whole."""
    content: Mapping[str, Any] | None
    """What the row means: the columns of its shape, written in one way (see `tuneforge.data.shapes`)."""
    shape: RowShape | None
    file: str
    """Path of its file in the data set."""
    line: int
    """The line in which it begins, or its number in a format without lines, from 1; 0 for a file as a whole."""
    part: str = ""
    """`train`, `validation` or `test` where the data set's own files are so divided, else empty."""
    key: str = ""
    """What its column `id`, `sample_id` or `session_id` holds."""
    problems: tuple[RowProblem, ...] = ()

    @property
    def is_usable(self) -> bool:
        """Whether there is a row without errors."""
        return self.content is not None and not any(each.severity is Severity.ERROR for each in self.problems)


class RawRow(NamedTuple):
    """What the reader of one format yields: the columns of a row, or a fault."""

    line: int
    columns: dict[str, Any] | None
    fault: RowFault | None = None
    raw: bytes | str = b""
    """What stands there, for the excerpt and the id of a row that cannot be read."""
