"""Files with one JSON object a line."""

import itertools
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
    content = pieces(file, limits)
    first = next(content, b"")
    check_start(first)
    if first.startswith(BOM):
        first = first[len(BOM) :]
        yield RawRow(0, None, bom_removed())
    whole = itertools.chain([first], content) if first else content
    if is_spread_out(first):
        yield from read_values(whole, limits)
        return
    rows = 0
    for number, line, is_whole in lines(whole, limits.row_bytes):
        if line is None:
            yield RawRow(number, None, too_large(limits))
            rows += 1
            continue
        stripped = line.strip()
        if not stripped:
            continue
        rows += 1
        try:
            yield RawRow(number, parse_object(decoded(line), is_whole=is_whole), raw=stripped)
        except RowFault as fault:
            yield RawRow(number, None, fault, stripped)
    if not rows:
        yield RawRow(0, None, nothing_in_it())


def is_spread_out(beginning: bytes) -> bool:
    """Tells whether a file that begins so is an array of objects, or has objects that are spread over lines."""
    start = beginning.lstrip()
    if start.startswith(b"["):
        return start[1:].lstrip()[:1] in (b"{", b"]", b"")
    return start.startswith((b"{\n", b"{\r"))
