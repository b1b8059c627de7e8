"""Files with one JSON object a line."""

from collections.abc import Iterator
from typing import Final

from tuneforge.data.formats.content import check_start, decoded, lines, pieces
from tuneforge.data.formats.json_values import read_values
from tuneforge.data.formats.parsed import DataFile, Limits, RawRow
from tuneforge.data.formats.remarks import bom_removed, nothing_in_it, too_large
from tuneforge.data.formats.strict_json import parse_object
from tuneforge.data.problems import RowFault

BOM: Final = b"\xef\xbb\xbf"


def read_jsonl(file: DataFile, limits: Limits) -> Iterator[RawRow]:
    """Yields the rows of a file with one object a line, or of a JSON array or spread-out objects where it is one.

    Raises:
        RowFault: the file as a whole cannot be read.
    """
    rows = 0
    for number, line, is_whole in lines(pieces(file, limits), limits.row_bytes):
        if line is None:
            yield RawRow(number, None, too_large(limits))
            rows += 1
            continue
        if number == 1:
            check_start(line)
            if line.startswith(BOM):
                line = line[len(BOM) :]
                yield RawRow(0, None, bom_removed())
        stripped = line.strip()
        if not stripped:
            continue
        if not rows and is_spread_out(stripped):
            yield from read_values(pieces(file, limits), limits)
            return
        rows += 1
        try:
            yield RawRow(number, parse_object(decoded(line), is_whole=is_whole), raw=stripped)
        except RowFault as fault:
            yield RawRow(number, None, fault, stripped)
    if not rows:
        yield RawRow(0, None, nothing_in_it())


def is_spread_out(first_line: bytes) -> bool:
    """Tells whether a file that begins with this line is an array, or has objects spread over lines."""
    return first_line in (b"{", b"[") or (first_line.startswith(b"[") and first_line[1:].lstrip()[:1] in (b"{", b""))
