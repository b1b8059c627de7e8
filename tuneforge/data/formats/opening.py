"""Opens the files of a data set as one stream of rows, whatever their format."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from tuneforge.data.formats.columnar import read_arrow, read_parquet
from tuneforge.data.formats.consistency import Consistency
from tuneforge.data.formats.delimited import read_csv
from tuneforge.data.formats.images import read_image, resolved
from tuneforge.data.formats.jsonl import read_jsonl
from tuneforge.data.formats.layout import Layout, Source, lay_out
from tuneforge.data.formats.parsed import DataFile, DataFormat, Limits, ParsedRow, RawRow
from tuneforge.data.formats.plain import read_text
from tuneforge.data.formats.remarks import nothing_in_it
from tuneforge.data.identity import id_of_bytes, row_id
from tuneforge.data.problems import ProblemCode, RowFault, RowProblem, excerpt_of
from tuneforge.data.shapes import RowShape, recognise

_READERS: Final[Mapping[DataFormat, Callable[[DataFile, Limits], Iterator[RawRow]]]] = {
    DataFormat.JSONL: read_jsonl,
    DataFormat.JSON: read_jsonl,
    DataFormat.CSV: read_csv,
    DataFormat.PARQUET: read_parquet,
    DataFormat.ARROW: read_arrow,
    DataFormat.TEXT: read_text,
    DataFormat.IMAGES: read_image,
}


def open_rows(files: Mapping[str, Path] | Iterable[DataFile], *, limits: Limits | None = None) -> Iterator[ParsedRow]:
    """Reads the rows of a data set in order, in bounded memory.

    Args:
        files: path in the data set -> where its bytes are.
        limits: how much is taken; None for the usual.

    Yields:
        Each row; and without content what is wrong with what should be a row, or is to be said of a file.

    Raises:
        MissingExtra: a package that the format needs is not installed.
    """
    listed = [DataFile(path, Path(local)) for path, local in files.items()] if isinstance(files, Mapping) else [*files]
    limits = limits or Limits()
    try:
        layout = lay_out(listed, limits)
    except RowFault as fault:
        yield _without_content(listed[0], RawRow(0, None, fault))
        return
    for file, said in layout.remarks:
        yield _without_content(file, RawRow(0, None, said))
    if not layout.sources:
        first = listed[0] if listed else DataFile("", Path())
        yield _without_content(first, RawRow(0, None, nothing_in_it("Give a file with rows.")))
    reading = _Reading(layout, limits)
    for source in layout.sources:
        yield from reading.rows(source)


class _Reading:
    """One reading of a data set."""

    def __init__(self, layout: Layout, limits: Limits) -> None:
        self._layout = layout
        self._limits = limits
        self._consistency = Consistency()

    def rows(self, source: Source) -> Iterator[ParsedRow]:
        """Yields the rows of one file."""
        try:
            for raw in _READERS[source.format](source.file, self._limits):
                yield self._parsed(source, raw)
        except RowFault as fault:
            yield _without_content(source.file, RawRow(1 if fault.column else 0, None, fault), source.part)

    def _parsed(self, source: Source, raw: RawRow) -> ParsedRow:
        if raw.columns is None:
            return _without_content(source.file, raw, source.part)
        try:
            if len(raw.columns) > self._limits.columns:
                message = f"The row has {len(raw.columns)} columns; at most {self._limits.columns} are read."
                raise RowFault(ProblemCode.TOO_MANY_COLUMNS, message, "Leave out what is not needed.")
            recognition = recognise(tuple(raw.columns))
            content = recognition.read(raw.columns)
            if recognition.shape is RowShape.IMAGE_LABEL:
                content["image"] = resolved(content["image"], source.file, self._layout.gallery, self._limits)
            identity = _identity(content)
            self._consistency.check(recognition, content)
        except RowFault as fault:
            return _without_content(source.file, raw._replace(fault=fault), source.part)
        faults = self._consistency.remarks(recognition)
        key = raw.columns[recognition.id_column] if recognition.id_column else None
        return ParsedRow(
            row_id=identity,
            content=content,
            shape=recognition.shape,
            file=source.file.path,
            line=raw.line,
            part=source.part,
            key="" if key is None else str(key),
            problems=tuple(problem_of(source.file, raw, fault, identity) for fault in faults),
        )


def _identity(content: dict[str, object]) -> str:
    try:
        return row_id(content)
    except UnicodeEncodeError:
        message = "It holds half of a surrogate pair, which is no character."
        raise RowFault(ProblemCode.NOT_UTF8, message, "Write the character whole, or leave it out.") from None
    except (TypeError, ValueError, RecursionError) as error:
        message = f"It holds a value that is no JSON: {str(error)[:100]}."
        raise RowFault(ProblemCode.TYPE_MISMATCH, message, "Give texts, numbers, lists and objects.") from None


def _without_content(file: DataFile, raw: RawRow, part: str = "") -> ParsedRow:
    assert raw.fault is not None
    stands = raw.raw.encode("utf-8", "backslashreplace") if isinstance(raw.raw, str) else raw.raw
    identity = id_of_bytes(stands) if raw.line and stands else ""
    problem = problem_of(file, raw, raw.fault, identity)
    return ParsedRow(
        row_id=identity, content=None, shape=None, file=file.path, line=raw.line, part=part, problems=(problem,)
    )


def problem_of(file: DataFile, raw: RawRow, fault: RowFault, identity: str) -> RowProblem:
    """Returns a fault with its place."""
    return RowProblem(
        line=raw.line,
        field=fault.field,
        message=fault.message,
        cure=fault.cure,
        code=fault.code,
        severity=fault.severity,
        file=file.path,
        column=fault.column,
        excerpt=excerpt_of(raw.raw, fault.column),
        row_id=identity,
    )
