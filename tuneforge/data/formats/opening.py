"""Opens the files of a data set as one stream of rows, whatever their format."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tuneforge.data.formats.consistency import Consistency
from tuneforge.data.formats.jsonl import read_jsonl
from tuneforge.data.formats.parsed import DataFile, Limits, ParsedRow, RawRow
from tuneforge.data.identity import id_of_bytes, row_id
from tuneforge.data.problems import RowFault, RowProblem, excerpt_of
from tuneforge.data.shapes import recognise


def open_rows(files: Mapping[str, Path] | Iterable[DataFile], *, limits: Limits | None = None) -> Iterator[ParsedRow]:
    """Reads the rows of a data set in order, in bounded memory.

    Args:
        files: path in the data set -> where its bytes are.
        limits: how much is taken; None for the usual.

    Yields:
        Each row; and without content what is wrong with what should be a row, or is to be said of a file.
    """
    listed = [DataFile(path, Path(local)) for path, local in files.items()] if isinstance(files, Mapping) else files
    limits = limits or Limits()
    consistency = Consistency()
    for file in sorted(listed, key=lambda file: file.path):
        try:
            for raw in read_jsonl(file, limits):
                yield _parsed(file, raw, consistency)
        except RowFault as fault:
            yield _without_content(file, RawRow(1 if fault.column else 0, None, fault))


def _parsed(file: DataFile, raw: RawRow, consistency: Consistency) -> ParsedRow:
    if raw.columns is None:
        return _without_content(file, raw)
    try:
        recognition = recognise(tuple(raw.columns))
        content = recognition.read(raw.columns)
        identity = row_id(content)
        consistency.check(recognition, content)
    except RowFault as fault:
        return _without_content(file, raw._replace(fault=fault))
    problems = tuple(problem_of(file, raw, fault, identity) for fault in consistency.remarks(recognition))
    key = "" if recognition.id_column is None else str(raw.columns[recognition.id_column] or "")
    return ParsedRow(
        row_id=identity,
        content=content,
        shape=recognition.shape,
        file=file.path,
        line=raw.line,
        key=key,
        problems=problems,
    )


def _without_content(file: DataFile, raw: RawRow) -> ParsedRow:
    assert raw.fault is not None
    stands = raw.raw.encode("utf-8", "backslashreplace") if isinstance(raw.raw, str) else raw.raw
    identity = id_of_bytes(stands) if raw.line and stands else ""
    problem = problem_of(file, raw, raw.fault, identity)
    return ParsedRow(row_id=identity, content=None, shape=None, file=file.path, line=raw.line, problems=(problem,))


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
