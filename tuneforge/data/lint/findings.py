"""What the linter says: findings as they come, and one summary at the end.

A finding of a check never holds a row's text, so reports may be kept and passed on: it says where something stands and
what kind of thing it is. Control tokens, short labels, roles and column names are told: they are words of a format.
"""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Final

from tuneforge.data.problems import Severity

SEVERITIES: Final = (Severity.ERROR, Severity.WARNING, Severity.INFO)
"""From the worst to the mildest."""


class Part(enum.StrEnum):
    """Which rows are meant."""

    TRAIN = "TRAIN"
    VALIDATION = "VALIDATION"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was found."""

    code: str
    """What it is, in upper case: `EMPTY_TARGET`. The severity of a code may depend on the policy for overlong rows."""
    severity: Severity
    check: str
    """Name of the check that found it, by which it is switched off."""
    message: str
    """What is wrong: one sentence, without the row's text and without anything that depends on the order of rows."""
    cure: str
    """What to do about it: one sentence."""
    is_probable: bool = False
    """Whether it is a guess that may be wrong; else it is exact."""
    part: Part = Part.TRAIN
    row_id: str = ""
    """Id of the row; empty when the data set as a whole is meant."""
    related_row_id: str = ""
    """Id of the other row, for duplicates, leaks and conflicts; else empty."""
    file: str = ""
    """Name of the file; empty when the data set as a whole is meant."""
    line: int = 0
    """Line or row number in the file, from 1; 0 when the file as a whole is meant."""
    field: str = ""
    """Path inside the row, e.g. `messages[1].content`; empty when the row as a whole is meant."""

    @property
    def identity(self) -> tuple[str, str, str, str, str, str]:
        """What stays the same when rows change places: all but file and line."""
        return self.code, self.part, self.row_id, self.related_row_id, self.field, self.message

    @property
    def sort_key(self) -> tuple[int, str, str, str, int, str, str]:
        """Places the worst first, then by code, part, file, line, field."""
        return (
            SEVERITIES.index(self.severity),
            self.code,
            self.part,
            self.file,
            self.line,
            self.field,
            self.row_id + self.related_row_id,
        )

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file or "the data set"
        return f"{place}{' ' + self.field if self.field else ''}: {self.code}: {self.message} {self.cure}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TokenCounts:
    """Lengths of rows in tokens, by a model's tokenizer."""

    rows: int
    """Rows that were made into tokens."""
    tokens: int
    """Tokens of all of them, before the policy for overlong rows."""
    supervised: int
    """Tokens that are learned, after it."""
    p50: int
    """Half of the rows have at most this many tokens; 0 without rows."""
    p90: int
    p99: int
    longest: int
    dropped: int
    """Rows that the policy leaves out, those of which nothing learned is left included."""
    truncated: int
    """Rows that lose their end and are still learned from."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What was looked at and what was found in it."""

    rows: int
    """Rows of the training part, the malformed ones included."""
    validation_rows: int
    malformed: int
    """Rows of both parts that cannot be read."""
    findings: int
    """All findings, listed or not."""
    by_severity: Mapping[str, int]
    """Findings by severity, each of the three named."""
    by_code: Mapping[str, int]
    """Findings by code, in alphabetical order."""
    not_listed: Mapping[str, int]
    """Findings that were counted but not listed, by code: above the limit for a code."""
    checks: tuple[str, ...]
    """Names of the checks that ran."""
    skipped: Mapping[str, str]
    """Checks that were asked for and could not run, with the reason."""
    tokens: TokenCounts | None = None
    """Of the training part; None without a tokenizer."""

    def fails(self, severity: Severity) -> bool:
        """Returns whether anything as bad as this, or worse, was found."""
        worst = SEVERITIES[: SEVERITIES.index(severity) + 1]
        return any(self.by_severity.get(each, 0) for each in worst)
