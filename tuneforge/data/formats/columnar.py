"""Parquet and Arrow files, some rows at a time; of a table only the columns that are read are taken from the disk.

What a file claims of itself is checked before memory is taken for it; extension types, which may run code, are refused.
"""

import importlib
import json
import warnings
from collections.abc import Iterator
from typing import Any, Final

from tuneforge.data.faults import MissingExtra
from tuneforge.data.formats.content import check_regular
from tuneforge.data.formats.parsed import MIB, DataFile, Limits, RawRow
from tuneforge.data.formats.remarks import nothing_in_it
from tuneforge.data.problems import ProblemCode, RowFault
from tuneforge.data.shapes import recognise

_BATCH_BYTES: Final = 8 * MIB
_MOST_BATCH_ROWS: Final = 256
"""Values that repeat may be far larger than what the file says of itself, so that a batch has few rows anyway."""
_DEEPEST: Final = 16
_LARGEST_GROUP: Final = 64 * 1024 * MIB
_FOOTER_BYTES: Final = 16 * MIB
_WRITE_AGAIN: Final = "Write the file again, unencrypted and with plain column types."


def read_parquet(file: DataFile, limits: Limits) -> Iterator[RawRow]:
    """Yields the rows of a Parquet file, numbered from 1.

    Raises:
        RowFault: the file as a whole cannot be read.
    """
    pa = _pyarrow("Reading Parquet")
    parquet = importlib.import_module("pyarrow.parquet")
    before = check_regular(file.local)
    number = 0
    try:
        with file.local.open("rb") as opened:
            options = {"thrift_string_size_limit": _FOOTER_BYTES, "thrift_container_size_limit": 1_000_000}
            table = parquet.ParquetFile(opened, pre_buffer=False, buffer_size=MIB, memory_map=False, **options)
            _check_metadata(table.metadata)
            columns = _wanted(table.schema_arrow, limits)
            labels = class_names(table.schema_arrow.metadata or {})
            size = _batch_rows(table.metadata)
            for batch in table.iter_batches(batch_size=size, columns=columns, use_threads=False):
                for row in _plain_rows(batch, labels):
                    number += 1
                    yield _limited(number, row, limits)
    except (pa.ArrowException, OSError, ValueError, NotImplementedError, OverflowError, MemoryError) as error:
        raise _damaged(error, number, file) from error
    after = check_regular(file.local)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        message = "The file changed while it was read."
        raise RowFault(ProblemCode.DATASET_CHANGED, message, "Give it again when nobody writes to it.")
    if not number:
        yield RawRow(0, None, nothing_in_it("Write rows into it."))


def read_arrow(file: DataFile, limits: Limits) -> Iterator[RawRow]:
    """Yields the rows of an Arrow file or stream, numbered from 1.

    Raises:
        RowFault: the file as a whole cannot be read.
    """
    pa = _pyarrow("Reading Arrow files")
    check_regular(file.local)
    number = 0
    try:
        with pa.OSFile(str(file.local)) as opened:  # no map: a file that is cut short would end the process
            schema, batches = _batches(pa, opened)
            columns = _wanted(schema, limits)
            labels = class_names(schema.metadata or {})
            for batch in batches:
                taken = batch.select(columns)
                taken.validate(full=True)  # lengths and offsets are taken as they come, and may lead anywhere
                for start in range(0, taken.num_rows, _MOST_BATCH_ROWS):
                    for row in _plain_rows(taken.slice(start, _MOST_BATCH_ROWS), labels):
                        number += 1
                        yield _limited(number, row, limits)
    except (pa.ArrowException, OSError, ValueError, NotImplementedError, OverflowError, MemoryError) as error:
        raise _damaged(error, number, file) from error
    if not number:
        yield RawRow(0, None, nothing_in_it("Write rows into it."))


def class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Returns column -> names of its classes, as Hugging Face notes them in a table's metadata."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return names_of_features(features)


def names_of_features(features: Any) -> dict[str, list[str]]:
    """Returns column -> names of its classes from a description of features."""
    if not isinstance(features, dict):
        return {}
    found = {}
    for column, feature in features.items():
        names = feature.get("names") if isinstance(feature, dict) else None
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            found[column] = names
    return found


def _pyarrow(purpose: str) -> Any:
    try:
        return importlib.import_module("pyarrow")  # it has no types, and comes with an extra
    except ImportError as error:
        raise MissingExtra("pyarrow", purpose, "formats") from error


def _batches(pa: Any, opened: Any) -> tuple[Any, Iterator[Any]]:
    head = opened.read(6)
    opened.seek(0)
    if head == b"ARROW1":
        table = pa.ipc.open_file(opened)
        return table.schema, (table.get_batch(index) for index in range(table.num_record_batches))
    stream = pa.ipc.open_stream(opened)
    return stream.schema, iter(stream)


def _check_metadata(metadata: Any) -> None:
    """Raises when a Parquet file claims sizes that cannot be."""
    if metadata.num_rows < 0 or metadata.num_row_groups < 0:
        raise ValueError("it claims a negative number of rows")
    total = 0
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        if group.num_rows < 0 or not 0 <= group.total_byte_size <= _LARGEST_GROUP:
            raise ValueError(f"row group {index + 1} claims {group.num_rows} rows of {group.total_byte_size} bytes")
        total += group.num_rows
    if total != metadata.num_rows:
        raise ValueError(f"its row groups have {total} rows, but it claims {metadata.num_rows}")


def _batch_rows(metadata: Any) -> int:
    size = sum(int(metadata.row_group(index).total_byte_size) for index in range(metadata.num_row_groups))
    return max(1, min(_MOST_BATCH_ROWS, _BATCH_BYTES * max(1, int(metadata.num_rows)) // max(1, size)))


def _wanted(schema: Any, limits: Limits) -> list[str]:
    """Returns the columns that are read.

    Raises:
        RowFault: too many columns, two of one name, a type that is not taken, or no known shape.
    """
    if len(schema.names) > limits.columns:
        message = f"The table has {len(schema.names)} columns; at most {limits.columns} are read."
        raise RowFault(ProblemCode.TOO_MANY_COLUMNS, message, "Leave out what is not needed.")
    if len(set(schema.names)) < len(schema.names):
        raise RowFault(ProblemCode.DUPLICATE_COLUMN, "Two columns have the same name.", "Rename one of them.")
    for field in schema:
        _check_type(field.name, field.type, 1)
    names = [name for name in schema.names if not name.startswith("__index_level_")]
    recognition = recognise(tuple(names))
    extra = [] if recognition.id_column is None else [recognition.id_column]
    return list(dict.fromkeys([*recognition.columns, *extra]))


def _check_type(name: str, kind: Any, depth: int) -> None:
    if isinstance(kind, _pyarrow("Reading tables").BaseExtensionType) or depth > _DEEPEST:
        what = f"nested more than {_DEEPEST} deep" if depth > _DEEPEST else f"of the extension type {kind}"[:80]
        raise RowFault(ProblemCode.CORRUPT_PARQUET, f"The column `{name[:60]}` is {what}.", _WRITE_AGAIN, field=name)
    for index in range(kind.num_fields):
        _check_type(name, kind.field(index).type, depth + 1)


def _plain_rows(batch: Any, labels: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
    named = {name: labels[name] for name in batch.schema.names if name in labels}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = batch.to_pylist()
    for row in rows:
        for name, classes in named.items():
            number = row[name]
            if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < len(classes):
                row[name] = classes[number]
            elif isinstance(number, int):
                row[name] = -1  # Hugging Face's sign for a label that is not known
        yield {name: _without_nulls(value) for name, value in row.items()}


def _without_nulls(value: Any) -> Any:
    """Leaves out null members of objects: a column's type gives every object all members that any of them has."""
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value]
    return value


def _limited(number: int, row: dict[str, Any], limits: Limits) -> RawRow:
    size = sum(len(value) for value in row.values() if isinstance(value, str | bytes))
    if size > limits.row_bytes:
        message = f"The row has {size} characters; at most {limits.row_bytes} are taken."
        return RawRow(number, None, RowFault(ProblemCode.ROW_TOO_LARGE, message, "Split it into several rows."))
    shown = next((value for value in row.values() if isinstance(value, str)), "")
    return RawRow(number, row, raw=shown[:400])


def _damaged(error: Exception, rows: int, file: DataFile) -> RowFault:
    if isinstance(error, MemoryError):
        message = f"Reading it takes more memory than there is, after {rows} rows."
        cure = "Write it with smaller row groups and values."
        return RowFault(ProblemCode.LIMIT_EXCEEDED, message, cure)
    said = " ".join(str(error).replace(str(file.local), file.path).split())[:160] or type(error).__name__
    message = f"The file is damaged or cannot be read after {rows} rows: {said.rstrip('.')}."
    return RowFault(ProblemCode.CORRUPT_PARQUET, message, _WRITE_AGAIN)
