"""Writes data sets for tests and reads them back."""

import importlib
import io
from pathlib import Path
from typing import Any

from tuneforge.data.formats import Limits, ParsedRow, open_rows
from tuneforge.data.problems import Severity

PA: Any = importlib.import_module("pyarrow")
"""It has no types."""
PQ: Any = importlib.import_module("pyarrow.parquet")


def write(folder: Path, files: dict[str, bytes]) -> dict[str, Path]:
    """Writes files below a folder and returns them by their path in the data set."""
    found = {}
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        found[name] = path
    return found


def read(folder: Path, files: dict[str, bytes], limits: Limits | None = None) -> list[ParsedRow]:
    """Returns what `open_rows` yields for files."""
    return list(open_rows(write(folder, files), limits=limits))


def contents(rows: list[ParsedRow]) -> list[Any]:
    """Returns the contents of those that are rows."""
    return [row.content for row in rows if row.content is not None]


def errors(rows: list[ParsedRow]) -> list[tuple[str, int]]:
    """Returns code and line of every error."""
    found = [problem for row in rows for problem in row.problems if problem.severity is Severity.ERROR]
    return [(problem.code, problem.line) for problem in found]


def remarks(rows: list[ParsedRow]) -> list[str]:
    """Returns the codes of what is only said."""
    return [problem.code for row in rows for problem in row.problems if problem.severity is not Severity.ERROR]


def parquet(columns: dict[str, list[Any]], **options: Any) -> bytes:
    """Returns a Parquet file."""
    target = io.BytesIO()
    PQ.write_table(PA.table(columns), target, **options)
    return target.getvalue()


def arrow_stream(columns: dict[str, list[Any]]) -> bytes:
    """Returns an Arrow stream, as Hugging Face writes it."""
    table, target = PA.table(columns), io.BytesIO()
    with PA.ipc.new_stream(target, table.schema) as writer:
        writer.write_table(table)
    return target.getvalue()


def image(width: int = 3, height: int = 4, color: str = "red") -> bytes:
    """Returns a PNG."""
    from PIL import Image

    target = io.BytesIO()
    Image.new("RGB", (width, height), color).save(target, "PNG")
    return target.getvalue()
