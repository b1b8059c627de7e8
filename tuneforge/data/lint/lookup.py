"""One row of a data set, by its number or the beginning of its id."""

from collections.abc import Mapping
from pathlib import Path

from tuneforge.data.formats import ParsedRow, open_rows

SHORTEST_ID = 6
"""Digits of an id that are enough to ask by."""


def find_row(files: Mapping[str, Path], wanted: int | str) -> ParsedRow | None:
    """Returns a row, readable or not; None when there is none such.

    Args:
        files: path in the data set -> where its bytes are.
        wanted: its number among the rows of all files, from 1, or the beginning of its id.
    """
    number = 0
    for parsed in open_rows(files):
        if parsed.line == 0:
            continue
        number += 1
        if number == wanted or (isinstance(wanted, str) and parsed.row_id.startswith(wanted.lower())):
            return parsed
    return None
