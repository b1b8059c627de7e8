"""Plain text: a row is a paragraph, that is lines up to a blank one; in a file without blank lines it is a line.

Which of the two is decided by the first MiB and said. Markdown is read in the same way.
"""

from collections.abc import Iterator

from tuneforge.data.formats.content import PIECE_BYTES, check_start, decoded, lines, pieces
from tuneforge.data.formats.jsonl import BOM
from tuneforge.data.formats.parsed import DataFile, Limits, RawRow
from tuneforge.data.formats.remarks import bom_removed, nothing_in_it, remark, too_large
from tuneforge.data.problems import ProblemCode, RowFault


def read_text(file: DataFile, limits: Limits) -> Iterator[RawRow]:
    """Yields the paragraphs or lines of a file as rows with the column `text`.

    Raises:
        RowFault: the file as a whole cannot be read.
    """
    by_paragraph = _has_blank_line(file, limits)
    how = "A paragraph is a row: blank lines divide them." if by_paragraph else "A line is a row: no line is blank."
    yield RawRow(0, None, remark(ProblemCode.FORMAT_CHOICE, how))
    rows = 0
    for begin, text in _texts(file, limits, by_paragraph=by_paragraph):
        rows += 1
        yield RawRow(begin, None, text) if isinstance(text, RowFault) else RawRow(begin, {"text": text}, raw=text[:400])
    if not rows:
        yield RawRow(0, None, nothing_in_it("Write text into it."))
    elif _begins_with_bom(file, limits):
        yield RawRow(0, None, bom_removed())


def _texts(file: DataFile, limits: Limits, *, by_paragraph: bool) -> Iterator[tuple[int, str | RowFault]]:
    begin, held, size = 0, list[str](), 0
    for number, line, _ in lines(pieces(file, limits), limits.row_bytes):
        if number == 1 and line is not None:
            check_start(line)
            line = line.removeprefix(BOM)
        if line is not None and not line.strip():
            if held:
                yield begin, _joined(held)
            held, size = [], 0
            continue
        size += limits.row_bytes + 1 if line is None else len(line)
        begin = begin if held else number
        if line is None or size > limits.row_bytes:
            if size - (len(line) if line else 0) <= limits.row_bytes:
                yield begin, too_large(limits)
            held = held[:1] or [""]
            continue
        try:
            held.append(decoded(line))
        except RowFault as fault:
            yield number, fault
            continue
        if not by_paragraph:
            yield begin, _joined(held)
            held, size = [], 0
    if held and size <= limits.row_bytes:
        yield begin, _joined(held)


def _joined(held: list[str]) -> str:
    return "\n".join(line.rstrip("\r\n") for line in held).rstrip()


def _has_blank_line(file: DataFile, limits: Limits) -> bool:
    first = next(pieces(file, limits), b"")[:PIECE_BYTES].strip()
    return any(not line.strip() for line in first.splitlines())


def _begins_with_bom(file: DataFile, limits: Limits) -> bool:
    return next(pieces(file, limits), b"").startswith(BOM)
