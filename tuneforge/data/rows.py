"""Rows of a JSONL data set: read one by one, and checked with a sentence for every fault.

A file has one row a line, all of one shape: `messages` (a conversation), `prompt` and `completion` (plain text), or
`instruction` with `output` and perhaps `input`. Memory stays bounded: one line is held at a time. How a row becomes
text is in `rendering.py`.
"""

import dataclasses
import enum
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tuneforge.data._parsing import RowFault, Turn, parse_object, parse_row

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""16 MiB: far above any row that fits a context window, far below what would hurt a service that checks it."""


class RowShape(enum.StrEnum):
    """What the rows of a file look like; the values are those of the contract's `RowShape` without its prefix."""

    MESSAGES = "MESSAGES"
    PROMPT_COMPLETION = "PROMPT_COMPLETION"
    INSTRUCTION = "INSTRUCTION"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row. `turns` is set for MESSAGES and INSTRUCTION, `prompt` and `completion` for PROMPT_COMPLETION."""

    id: str
    """First 16 hexadecimal digits of the SHA-256 of the row's line: equal rows have equal ids."""
    line: int
    """Number of its line in its file, from 1."""
    shape: RowShape
    turns: tuple[Turn, ...] = ()
    """The conversation; the last turn is the assistant's and no assistant's turn is blank."""
    prompt: str = ""
    completion: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RowProblem:
    """What is wrong with one row."""

    line: int
    """Number of the line, from 1; 0 when the file as a whole is meant."""
    field: str
    """Path inside the row, e.g. `messages[1].content`; empty when the row as a whole is meant."""
    message: str
    """What is wrong, with the value: one sentence."""
    cure: str
    """What to do about it: one sentence."""

    def __str__(self) -> str:
        place = f"line {self.line}" if self.line else "the file"
        return f"{place}{', ' + self.field if self.field else ''}: {self.message} {self.cure}"


class MalformedRow(ValueError):
    """A row that cannot be read."""

    def __init__(self, problem: RowProblem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """What was found in a file."""

    shape: RowShape | None
    """Shape of the first readable row; None when there is none."""
    rows: int
    """Rows that can be read."""
    problems: tuple[RowProblem, ...]
    """The first problems found, one a row at most."""
    num_problems: int
    """All problems found, also those above the limit."""


def read_rows(path: Path) -> Iterator[Row]:
    """Reads a file's rows in order; blank lines are passed over.

    Raises:
        MalformedRow: at the first row that cannot be read, or whose shape is not that of the rows before it, or at the
            end of a file without a row.
    """
    shape: RowShape | None = None
    for result in _scan(path):
        if isinstance(result, RowProblem):
            raise MalformedRow(result)
        shape = shape or result.shape
        if result.shape is not shape:
            raise MalformedRow(_mixed(result, shape))
        yield result


def check_file(path: Path, limit: int = 20) -> FileReport:
    """Reads a whole file and reports what is wrong with it.

    Args:
        path: the JSONL file.
        limit: most problems that are listed, >= 1; all are counted.
    """
    shape: RowShape | None = None
    rows = num_problems = 0
    problems: list[RowProblem] = []
    for result in _scan(path):
        found = result
        if isinstance(found, Row):
            shape = shape or found.shape
            if found.shape is shape:
                rows += 1
                continue
            found = _mixed(found, shape)
        num_problems += 1
        if len(problems) < limit:
            problems.append(found)
    return FileReport(shape=shape, rows=rows, problems=tuple(problems), num_problems=num_problems)


def _scan(path: Path) -> Iterator[Row | RowProblem]:
    """Yields each row of a file, or what is wrong with it."""
    is_empty = True
    for number, line, is_whole in _lines(path):
        if line is None:
            is_empty = False
            message = f"The line is longer than {MAX_LINE_BYTES // 2**20} MiB."
            yield RowProblem(line=number, field="", message=message, cure="Split it into several rows.")
        elif line.strip():
            is_empty = False
            yield _row(number, line, is_whole)
    if is_empty:
        yield RowProblem(line=0, field="", message="There is no row in it.", cure="Write one JSON object a line.")


def _lines(path: Path) -> Iterator[tuple[int, bytes | None, bool]]:
    """Yields (number, content, whether a line break ends it); content is None for a line that is too long."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")  # some editors write a byte order mark
            is_whole = line.endswith(b"\n")
            if len(line) > MAX_LINE_BYTES and not is_whole:
                while rest := file.readline(MAX_LINE_BYTES):
                    if rest.endswith(b"\n"):
                        break
                yield number, None, True
            else:
                yield number, line, is_whole


def _row(number: int, line: bytes, is_whole: bool) -> Row | RowProblem:
    try:
        row = parse_object(line, is_whole)
        name, turns, (prompt, completion) = parse_row(row)
    except RowFault as fault:
        return RowProblem(line=number, field=fault.field, message=fault.message, cure=fault.cure)
    identity = hashlib.sha256(line.strip()).hexdigest()[:16]
    return Row(id=identity, line=number, shape=RowShape(name), turns=turns, prompt=prompt, completion=completion)


def _mixed(row: Row, shape: RowShape) -> RowProblem:
    message = f"Its shape is {row.shape}, but the rows before it are {shape}."
    return RowProblem(line=row.line, field="", message=message, cure="Keep each shape in a data set of its own.")


__all__ = ["FileReport", "MalformedRow", "Row", "RowProblem", "RowShape", "Turn", "check_file", "read_rows"]
