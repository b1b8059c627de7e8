"""Examines a whole data set in one pass: is every row usable, how is it divided, what is it like."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from tuneforge.data.duplicates import Repeats
from tuneforge.data.formats import DataFile, DataFormat, Limits, ParsedRow, open_rows
from tuneforge.data.formats.layout import lay_out
from tuneforge.data.problems import ProblemCode, RowFault, RowProblem, Severity
from tuneforge.data.shapes import RowShape
from tuneforge.data.split import Side, Split, side_of
from tuneforge.data.statistics import Census, Statistics

MOST_PROBLEMS: Final = 20
"""Problems that are listed; who has more has made one mistake many times."""
_PART_SIDES: Final = {"train": Side.TRAIN, "validation": Side.VALIDATION, "test": Side.TEST}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What was found in a data set."""

    shape: RowShape | None
    """Shape of the first readable row; None when there is none."""
    format: DataFormat | None
    """Format of its first file with rows."""
    is_divided: bool
    """Whether its own files divide it into train, validation and test."""
    statistics: Statistics
    errors: tuple[RowProblem, ...]
    """The first errors, at most 20."""
    remarks: tuple[RowProblem, ...]
    """The first warnings and remarks, at most 20."""
    counts: Mapping[str, int]
    """Code -> how often it was found, all of them."""
    num_errors: int
    """All errors."""


def examine(
    files: Mapping[str, Path] | Iterable[DataFile], *, split: Split | None = None, limits: Limits | None = None
) -> Examination:
    """Reads a whole data set, in bounded memory.

    Args:
        files: path in the data set -> where its bytes are.
        split: how rows are divided; must be None where the files themselves are divided.
        limits: how much is taken; None for the usual.

    Raises:
        MissingExtra: a package that the format needs is not installed.
    """
    listed = [DataFile(path, Path(local)) for path, local in files.items()] if isinstance(files, Mapping) else [*files]
    limits = limits or Limits()
    with Repeats() as rows, Repeats() as keys:
        examiner = _Examiner(listed, split or Split(), rows, keys)
        for row in open_rows(listed, limits=limits):
            examiner.take(row)
        return examiner.conclude(limits)


def side_in(row: ParsedRow, split: Split) -> Side:
    """Returns the side of a row: that of its files' part, else by its id."""
    return _PART_SIDES[row.part] if row.part else side_of(row.row_id, split)


class _Examiner:
    def __init__(self, files: list[DataFile], split: Split, rows: Repeats, keys: Repeats) -> None:
        self._files = files
        self._numbers = {file.path: number for number, file in enumerate(files)}
        self._split = split
        self._repeats, self._keys = rows, keys
        self._census = Census()
        self._shape: RowShape | None = None
        self._is_divided = False
        self._counts: Counter[str] = Counter()
        self._num_errors = 0
        self._errors: list[RowProblem] = []
        self._remarks: list[RowProblem] = []

    def take(self, row: ParsedRow) -> None:
        """Counts a row or what is wrong with it."""
        for problem in row.problems:
            self._note(problem)
        if row.content is None:
            return
        self._shape = self._shape or row.shape
        self._is_divided |= bool(row.part)
        number = self._numbers[row.file]
        self._repeats.add_digest(bytes.fromhex(row.row_id), number, row.line)
        if row.key:
            self._keys.add(row.key, number, row.line)
        if row.is_usable:
            self._census.add(row, side_in(row, self._split))

    def conclude(self, limits: Limits) -> Examination:
        """Says what can only be said at the end."""
        for file, line, first_file, first_line in self._keys.found():
            self._note_repeat(file, line, self._files[first_file].path, first_line)
        duplicates = self._repeats.count()
        if duplicates:
            one = "One row has the content of an earlier row."
            said = one if duplicates == 1 else f"{duplicates} rows have the content of an earlier row."
            cure = "Leave them out unless they are meant to weigh more."
            self._say(ProblemCode.DUPLICATE_ROW, said, cure, Severity.WARNING, count=duplicates)
        statistics = self._census.result(duplicates)
        self._check_sides(statistics)
        return Examination(
            shape=self._shape,
            format=self._format(limits),
            is_divided=self._is_divided,
            statistics=statistics,
            errors=tuple(self._errors),
            remarks=tuple(self._remarks),
            counts=dict(self._counts),
            num_errors=self._num_errors,
        )

    def _note(self, problem: RowProblem, count: int = 1) -> None:
        is_error = problem.severity is Severity.ERROR
        self._counts[problem.code] += count
        self._num_errors += is_error * count
        kept = self._errors if is_error else self._remarks
        if len(kept) < MOST_PROBLEMS:
            kept.append(problem)

    def _say(self, code: ProblemCode, message: str, cure: str, severity: Severity, count: int = 1) -> None:
        problem = RowProblem(line=0, field="", message=message, cure=cure, code=code, severity=severity)
        self._note(problem, count)

    def _note_repeat(self, file: int, line: int, first_path: str, first_line: int) -> None:
        path = self._files[file].path
        place = f"line {first_line}" if first_path == path else f"line {first_line} of {first_path}"
        self._note(
            RowProblem(
                line=line,
                field="id",
                file=path,
                code=ProblemCode.DUPLICATE_ID,
                message=f"The row has the id of {place}.",
                cure="Give each row an id of its own, or leave the column out.",
            )
        )

    def _check_sides(self, statistics: Statistics) -> None:
        if not statistics.rows or not self._split.validation_ratio:
            return
        if self._is_divided:
            message = "The files are divided into train and validation already, and a validation ratio is given too."
            self._say(ProblemCode.TOO_FEW_SAMPLES, message, "Leave the ratio out.", Severity.ERROR)
        elif len(statistics.sides) < 2:
            message = f"A share of {self._split.validation_ratio:g} of {statistics.rows} rows leaves one side empty."
            cure = "Give more rows, another ratio, or another seed."
            self._say(ProblemCode.TOO_FEW_SAMPLES, message, cure, Severity.ERROR)

    def _format(self, limits: Limits) -> DataFormat | None:
        try:
            return lay_out(self._files, limits).format
        except RowFault:
            return None
