"""How a version of a data set and its rows look to a person."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tuneforge.cli.output import printable
from tuneforge.dataset_values import DatasetRow, DatasetStatistics, DatasetVersion, RowShape, Sizes

_LABELS_SHOWN: Final = 8
_TEXT_SHOWN: Final = 400
_BAR: Final = 24


def summary(version: DatasetVersion) -> Iterator[str]:
    """Yields lines about the rows of a version: how they are divided, how long they are, what is to be known."""
    found = version.statistics
    if found is not None:
        yield from _statistics(version, found)
    for remark in version.remarks:
        kind = "warning" if remark.is_warning else "note"
        place = f"{remark.file}:{remark.line}: " if remark.line else f"{remark.file}: " if remark.file else ""
        cure = f" {remark.cure}" if remark.is_warning else ""
        yield printable(f"{kind}: {place}{remark.message}{cure}")


def _statistics(version: DatasetVersion, found: DatasetStatistics) -> Iterator[str]:
    sides = {"train": found.train_rows, "validation": found.validation_rows, "test": found.test_rows}
    if version.split.validation_ratio or version.split.by_files:
        split = version.split
        how = "by the files' names" if split.by_files else f"by content, {split.validation_ratio:g}, seed {split.seed}"
        parts = ", ".join(f"{count} {side}" for side, count in sides.items() if count)
        yield f"split:      {parts} ({how})"
    if version.shape is not RowShape.IMAGE_LABEL:
        yield f"characters: {_sizes(found.characters)}"
    if found.target_characters.total:
        yield f"to learn:   {_sizes(found.target_characters)}"
    if found.turns:
        total = sum(found.turns.values())
        mean = sum(turns * count for turns, count in found.turns.items()) / total
        tools = f", {found.rows_with_tools} rows with tools" if found.rows_with_tools else ""
        yield f"turns:      {min(found.turns)} to {max(found.turns)} in a row, {mean:.1f} on average{tools}"
    if found.labels:
        yield from _labels(found)


def _labels(found: DatasetStatistics) -> Iterator[str]:
    yield f"labels:     {found.num_labels} different"
    largest = max(found.labels.values())
    for label, count in list(found.labels.items())[:_LABELS_SHOWN]:
        bar = "#" * max(1, round(_BAR * count / largest))
        yield printable(f"  {label[:24]:<24} {count:>8} {bar}")
    if found.num_labels > _LABELS_SHOWN:
        yield f"  and {found.num_labels - _LABELS_SHOWN} more"


def _sizes(sizes: Sizes) -> str:
    if not sizes.quantiles:
        return "none"
    low, _, middle, _, high, _ = sizes.quantiles
    return f"{sizes.smallest} to {sizes.largest} in a row, half below {middle}, 5 % below {low} and above {high}"


def row_lines(row: DatasetRow) -> Iterator[str]:
    """Yields the lines of one row: where it stands, then what it says."""
    cut = ", cut" if row.is_cut else ""
    yield printable(f"--- {row.row_id[:12]}  {row.file}:{row.line}  {row.side.lower()}{cut}")
    messages = row.content.get("messages")
    if isinstance(messages, list):
        for tool in row.content.get("tools", ()):
            yield _part("tool", tool.get("function", tool).get("name", ""))
        for message in messages:
            yield from _message(message)
        return
    for name, value in row.content.items():
        yield _part(name, value)


def _message(message: Mapping[str, Any]) -> Iterator[str]:
    if message.get("content") or not message.get("tool_calls"):
        yield _part(message["role"], message.get("content", ""))
    for call in message.get("tool_calls", ()):
        function = call["function"]
        arguments = json.dumps(function["arguments"], ensure_ascii=False)
        yield _part(f"{message['role']} calls", f"{function['name']}({arguments})")


def _part(name: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = text if len(text) <= _TEXT_SHOWN else text[:_TEXT_SHOWN] + "..."
    first, *rest = (printable(line) for line in text.split("\n"))
    return "\n".join([f"{name}: {first}", *(f"    {line}" for line in rest)])
