"""Tables as text (CSV), after RFC 4180: a header, quotes around cells with delimiters or line ends, quotes doubled.

The delimiter is found out from the first lines: comma, tab, semicolon or bar. Cells stay texts; what looks like a
formula is a text too.
"""

import csv
import itertools
from collections.abc import Iterator
from typing import Any, Final

from tuneforge.data.formats.content import check_start, decoded, lines, pieces, stem_of
from tuneforge.data.formats.jsonl import BOM
from tuneforge.data.formats.parsed import DataFile, Limits, RawRow
from tuneforge.data.formats.remarks import bom_removed, nothing_in_it, remark, too_large
from tuneforge.data.problems import ProblemCode, RowFault

_DELIMITERS: Final = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}
_LOOKED_AT: Final = 20
"""Lines from which the delimiter is found out."""


def read_csv(file: DataFile, limits: Limits) -> Iterator[RawRow]:
    """Yields the rows of a table; the line of a row is that in which it begins.

    Raises:
        RowFault: the file as a whole cannot be read.
    """
    source = _Lines(file, limits)
    first = list(itertools.islice(source.texts(), _LOOKED_AT))
    if source.has_bom:
        yield RawRow(0, None, bom_removed())
    delimiter = "\t" if stem_of(file.path).endswith(".tsv") else _delimiter_of(first)
    if delimiter != "," and not stem_of(file.path).endswith(".tsv"):
        message = f"The cells are divided by the {_DELIMITERS[delimiter]}."
        yield RawRow(0, None, remark(ProblemCode.FORMAT_CHOICE, message))
    if csv.field_size_limit() < limits.row_bytes:
        csv.field_size_limit(limits.row_bytes)  # of the whole process; rows are bounded by `_Lines`
    records = csv.reader(itertools.chain(first, source.texts()), delimiter=delimiter, strict=True)
    yield from _rows(records, source, limits)


def _rows(records: Any, source: "_Lines", limits: Limits) -> Iterator[RawRow]:
    header: list[str] | None = None
    rows = 0
    while True:
        begin = records.line_num + 1
        source.begin_row(begin)
        try:
            cells = next(records, None)
        except csv.Error as error:
            yield RawRow(begin, None, _quote_fault(error, begin), source.excerpt)
            return
        except _RowTooLarge:
            yield RawRow(begin, None, too_large(limits), source.excerpt)
            return
        if cells is None:
            break
        if not cells:
            continue
        fault = source.fault_of(records.line_num)
        if header is None:
            if fault is not None:
                raise fault
            header = _checked_header(cells, limits)
            continue
        rows += 1
        yield _row(begin, cells, header, fault or _ragged(cells, header), source.excerpt)
    if not rows:
        yield RawRow(0, None, nothing_in_it("Write a header and a line for each row."))


def _row(line: int, cells: list[str], header: list[str], fault: RowFault | None, excerpt: str) -> RawRow:
    if fault is not None:
        return RawRow(line, None, fault, excerpt)
    return RawRow(line, {name: cell for name, cell in zip(header, cells, strict=True) if name}, raw=excerpt)


def _ragged(cells: list[str], header: list[str]) -> RowFault | None:
    if len(cells) == len(header):
        return None
    message = f"It has {len(cells)} cells, but the header has {len(header)}."
    cure = "Put quotes around cells that hold the delimiter, or add what is missing."
    return RowFault(ProblemCode.RAGGED_ROW, message, cure)


class _RowTooLarge(Exception):
    """A row goes on for longer than rows may."""


class _Lines:
    """The lines of a file as texts, with a bound on those that one row takes."""

    def __init__(self, file: DataFile, limits: Limits) -> None:
        self.has_bom = False
        self.excerpt = ""
        """Beginning of the line in which the current row begins."""
        self._lines = lines(pieces(file, limits), limits.row_bytes)
        self._limit = limits.row_bytes
        self._begin = 1
        self._taken = 0
        self._starts: dict[int, str] = {}
        self._faults: dict[int, RowFault] = {}

    def fault_of(self, end: int) -> RowFault | None:
        """Returns what is wrong with the lines of the current row, whose last one is `end`."""
        found = [number for number in self._faults if self._begin <= number <= end]
        faults = [self._faults.pop(number) for number in sorted(found)]
        return faults[0] if faults else None

    def begin_row(self, line: int) -> None:
        """Tells that the lines from here on belong to another row."""
        self._begin, self._taken = line, 0
        self.excerpt = self._starts.pop(line, "")

    def texts(self) -> Iterator[str]:
        """Yields lines with their ends; what is wrong with one is kept for the row that it belongs to."""
        for number, line, _ in self._lines:
            if line is None or self._taken > self._limit:
                raise _RowTooLarge
            if number == 1:
                check_start(line)
                self.has_bom = line.startswith(BOM)
                line = line.removeprefix(BOM)
            self._taken += len(line)
            try:
                text = decoded(line)
            except RowFault as fault:
                self._faults[number] = fault
                text = line.decode("utf-8", "replace").replace("\0", "\ufffd")
            if number <= _LOOKED_AT:
                self._starts[number] = text[:400]
            elif number == self._begin:
                self.excerpt = text[:400]
            yield text


def _delimiter_of(first: list[str]) -> str:
    """Returns what divides the cells: what gives the header most columns and other lines as many."""
    best, most = ",", 1
    for delimiter in _DELIMITERS:
        try:
            widths = [len(cells) for cells in csv.reader(first, delimiter=delimiter) if cells]
        except csv.Error:
            continue
        same = sum(width == widths[0] for width in widths) if widths else 0
        if widths and widths[0] > most and same * 2 >= len(widths):
            best, most = delimiter, widths[0]
    return best


def _checked_header(cells: list[str], limits: Limits) -> list[str]:
    header = [cell.strip() for cell in cells]
    if len(header) > limits.columns:
        message = f"The table has {len(header)} columns; at most {limits.columns} are read."
        raise RowFault(ProblemCode.TOO_MANY_COLUMNS, message, "Leave out what is not needed.")
    for name in header:
        if name and header.count(name) > 1:
            message = f"The column `{name[:60]}` stands twice in the header."
            raise RowFault(ProblemCode.DUPLICATE_COLUMN, message, "Rename one of them.", field=name[:60])
    return header


def _quote_fault(error: csv.Error, begin: int) -> RowFault:
    if "unexpected end" in str(error):
        message = f"The quote that is opened in the row of line {begin} is not closed before the file ends."
    elif "expected after" in str(error):
        message = "Text stands behind a closing quote."
    else:
        message = f"The table cannot be read on: {error}."
    cure = "Write a quote within a cell twice, and close every quote."
    return RowFault(ProblemCode.UNCLOSED_QUOTE, message, cure)
