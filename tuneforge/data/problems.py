"""What can be wrong with a row, or worth saying about it: a code, a place, a sentence and a cure."""

import dataclasses
import enum
from typing import Any, Final

MOST_EXCERPT: Final = 80
"""Characters of an excerpt, after escaping."""


class Severity(enum.StrEnum):
    """How bad it is."""

    ERROR = "ERROR"
    """The row cannot be used; a data set with such rows is refused."""
    WARNING = "WARNING"
    """The row is used, and may not be what was meant."""
    INFO = "INFO"
    """Something was done with the rows that people should know."""


class ProblemCode(enum.StrEnum):
    """What is wrong, for programs; stable."""

    DATASET_EMPTY = "DATASET_EMPTY"
    NOT_UTF8 = "NOT_UTF8"
    NUL_BYTE = "NUL_BYTE"
    TRUNCATED = "TRUNCATED"
    MALFORMED_JSON = "MALFORMED_JSON"
    NOT_JSONL = "NOT_JSONL"
    ROW_TOO_LARGE = "ROW_TOO_LARGE"
    TOO_MANY_COLUMNS = "TOO_MANY_COLUMNS"
    MISSING_COLUMN = "MISSING_COLUMN"
    AMBIGUOUS_COLUMNS = "AMBIGUOUS_COLUMNS"
    TYPE_MISMATCH = "TYPE_MISMATCH"
    MIXED_SHAPES = "MIXED_SHAPES"
    EMPTY_TARGET = "EMPTY_TARGET"
    BAD_LABEL = "BAD_LABEL"
    BAD_CONVERSATION = "BAD_CONVERSATION"
    BAD_SESSION = "BAD_SESSION"
    BAD_IMAGE = "BAD_IMAGE"
    EQUAL_PAIR = "EQUAL_PAIR"
    DUPLICATE_ID = "DUPLICATE_ID"
    DUPLICATE_ROW = "DUPLICATE_ROW"
    DUPLICATE_COLUMN = "DUPLICATE_COLUMN"
    RAGGED_ROW = "RAGGED_ROW"
    UNCLOSED_QUOTE = "UNCLOSED_QUOTE"
    DECOMPRESSION_LIMIT = "DECOMPRESSION_LIMIT"
    CORRUPT_ARCHIVE = "CORRUPT_ARCHIVE"
    CORRUPT_PARQUET = "CORRUPT_PARQUET"
    DATASET_CHANGED = "DATASET_CHANGED"
    NOT_REGULAR_FILE = "NOT_REGULAR_FILE"
    UNKNOWN_FORMAT = "UNKNOWN_FORMAT"
    TOO_FEW_SAMPLES = "TOO_FEW_SAMPLES"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    BOM_REMOVED = "BOM_REMOVED"
    COLUMN_RENAMED = "COLUMN_RENAMED"
    COLUMNS_IGNORED = "COLUMNS_IGNORED"
    FILE_PASSED_OVER = "FILE_PASSED_OVER"
    FORMAT_CHOICE = "FORMAT_CHOICE"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RowProblem:
    """What is wrong with one row."""

    line: int
    """Number of the line, or of the row in a format without lines, from 1; 0 when the file as a whole is meant."""
    field: str
    """Path inside the row, e.g. `messages[1].content`; empty when the row as a whole is meant."""
    message: str
    """What is wrong, with the value: one sentence."""
    cure: str
    """What to do about it: one sentence."""
    code: str = ""
    """A `ProblemCode`."""
    severity: Severity = Severity.ERROR
    file: str = ""
    """Path of the file in the data set."""
    column: int = 0
    """Character in the line, from 1; 0 when no one character is meant."""
    excerpt: str = ""
    """What stands there: at most 80 characters, control characters escaped."""
    row_id: str = ""
    """Id of the row; empty when the file as a whole is meant."""

    def __str__(self) -> str:
        place = f"line {self.line}" if self.line else "the file"
        return f"{place}{', ' + self.field if self.field else ''}: {self.message} {self.cure}"


class RowFault(Exception):
    """One fault of a row: where, what and what to do."""

    def __init__(
        self,
        code: ProblemCode,
        message: str,
        cure: str,
        *,
        field: str = "",
        column: int = 0,
        severity: Severity = Severity.ERROR,
    ) -> None:
        super().__init__(code, field, message, cure)
        self.code = code
        self.field = field
        self.message = message
        self.cure = cure
        self.column = column
        self.severity = severity

    def __str__(self) -> str:
        """Returns what is wrong and what to do, for where the row is plain."""
        return f"{self.message} {self.cure}"


def excerpt_of(text: str | bytes, column: int = 0) -> str:
    """Returns what stands around a character of a line, escaped and cut to 80 characters.

    Args:
        text: the line; bytes that are not UTF-8 are written as their hexadecimal digits.
        column: the character that is meant, from 1; 0 begins with the line.
    """
    start = max(0, column - 1 - MOST_EXCERPT // 2)
    part = text[start : start + MOST_EXCERPT]
    if isinstance(part, bytes):
        part = part.decode("utf-8", "backslashreplace")
    escaped = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in part)
    return escaped[:MOST_EXCERPT]


def kind_of(value: Any) -> str:
    """Returns what kind of JSON value this is, for a sentence."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else f"a {type(value).__name__}")
