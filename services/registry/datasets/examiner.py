"""The process in which the rows of data sets are read: limited in memory and time, without the service's secrets.

Files come from strangers, and some formats are read by native code. This process gets an order on its input, writes one
answer as JSON, and ends. It is started as `python -m services.registry.datasets.examiner`.
"""

import dataclasses
import itertools
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from services.registry.child_limits import set_limits
from tuneforge.data.examination import examine, side_in
from tuneforge.data.formats import DataFile, ParsedRow, open_rows
from tuneforge.data.identity import canonical_json
from tuneforge.data.problems import ProblemCode, RowProblem
from tuneforge.data.split import Side, Split

MEMORY_BYTES: Final = 1024**3
"""Private memory; what rows need stays below 512 MiB with the largest files."""
CPU_S: Final = 3600
SPILLED_BYTES: Final = 4 * 1024**3
"""Largest temporary file; the digests of a billion rows take less."""
LONGEST_ROW_JSON: Final = 65536
LARGEST_PAGE: Final = 2 * 1024**2
"""Characters of rows in one page, so that it fits into a message."""
_LONGEST_PREVIEW_TEXT: Final = 4000


def run(order: Mapping[str, Any]) -> dict[str, Any]:
    """Does what an order asks for.

    Args:
        order: `kind` (`examine` or `rows`), `files` as [path in the manifest, local path], `split` as [ratio, seed];
            for rows `after` (rows that were passed), `size`, `side` and `prefix` of ids, both perhaps empty.

    Returns:
        What was found.
    """
    files = [DataFile(path, Path(local)) for path, local in order["files"]]
    split = Split(validation_ratio=order["split"][0], seed=order["split"][1])
    if order["kind"] == "rows":
        return _page(open_rows(files), split, order)
    try:
        found = examine(files, split=split)
    except MemoryError:
        return {"errors": [_as_json(exhausted())], "num_errors": 1, "counts": {ProblemCode.LIMIT_EXCEEDED: 1}}
    return {
        "shape": found.shape,
        "format": found.format,
        "is_divided": found.is_divided,
        "statistics": dataclasses.asdict(found.statistics),
        "errors": [_as_json(problem) for problem in found.errors],
        "remarks": [_as_json(problem) for problem in found.remarks],
        "counts": dict(found.counts),
        "num_errors": found.num_errors,
    }


def exhausted() -> RowProblem:
    """Returns the problem of files that take more memory or time to read than is given."""
    return RowProblem(
        line=0,
        field="",
        code=ProblemCode.LIMIT_EXCEEDED,
        message="Reading the files takes more memory or time than any real data set of their size.",
        cure="Write them again, in smaller row groups or files.",
    )


def _as_json(problem: RowProblem) -> dict[str, Any]:
    return dataclasses.asdict(problem)


def _page(rows: Iterator[ParsedRow], split: Split, order: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the rows of one page, and how many rows were passed when it ended; -1 when there are no more."""
    after, size = order["after"], order["size"]
    usable = enumerate((row for row in rows if row.content is not None), start=1)
    found: list[dict[str, Any]] = []
    room = LARGEST_PAGE
    passed = after
    for number, row in itertools.islice(usable, after, None):
        side = side_in(row, split)
        if (order["side"] and side != order["side"]) or not row.row_id.startswith(order["prefix"]):
            continue
        if len(found) == size or room < 0:
            return {"rows": found, "passed": passed}
        entry = _row(row, side)
        room -= len(entry["json"])
        found.append(entry)
        passed = number
    return {"rows": found, "passed": -1}


def _row(row: ParsedRow, side: Side) -> dict[str, Any]:
    content = canonical_json(row.content)
    is_cut = len(content) > LONGEST_ROW_JSON
    if is_cut:
        content = canonical_json(_shortened(row.content, _LONGEST_PREVIEW_TEXT))
        if len(content) > LONGEST_ROW_JSON:
            content = canonical_json({"...": content[: LONGEST_ROW_JSON // 8]})
    return {
        "id": row.row_id,
        "json": content,
        "is_cut": is_cut,
        "file": row.file,
        "line": row.line,
        "side": side,
        "shape": row.shape,
    }


def _shortened(value: Any, longest: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= longest else value[:longest] + "..."
    if isinstance(value, Mapping):
        return {name: _shortened(inner, longest) for name, inner in value.items()}
    if isinstance(value, list):
        return [_shortened(inner, longest) for inner in value]
    return value


def main() -> None:
    """Reads an order from the input and answers on the output."""
    set_limits(data_bytes=MEMORY_BYTES, cpu_s=CPU_S, file_bytes=SPILLED_BYTES)
    answer = run(json.loads(sys.stdin.buffer.read()))
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
