"""How commands print: aligned columns or `key: value` lines for people, one JSON object a line for programs."""

import contextlib
import dataclasses
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from tuneforge.lineage import Revocation

Row = TypeVar("Row")
Columns = Sequence[tuple[str, Callable[[Row], object]]]
"""Heading and the value under it."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UNITS = ("B", "kB", "MB", "GB", "TB")


def to_plain(value: Any) -> Any:
    """Returns a value made of what JSON has. Numbers that JSON lacks become `"NaN"`, `"Infinity"`, `"-Infinity"`."""
    from tuneforge.specs.spec import TrainingSpec

    if isinstance(value, TrainingSpec):
        from google.protobuf.json_format import MessageToDict

        from tuneforge.specs.wire import spec_to_proto

        return MessageToDict(spec_to_proto(value), preserving_proto_field_name=True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): to_plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def print_json(value: object) -> None:
    """Prints one JSON object on one line, at once: a reader of a pipe waits for it."""
    click.echo(json.dumps(to_plain(value), ensure_ascii=False, allow_nan=False))


def print_rows(rows: Iterable[Row], columns: "Columns[Row]", *, as_json: bool, nothing: str) -> None:
    """Prints a list.

    Args:
        rows: What to print; JSON is printed as it comes.
        columns: For people.
        as_json: One JSON object a row.
        nothing: What to say, on stderr, when there is no row: what there is not, and how to make one.
    """
    if as_json:
        for row in rows:
            print_json(row)
        return
    cells = [[shown(value(row)) for _, value in columns] for row in rows]
    if not cells:
        click.echo(nothing, err=True)
        return
    table = [[heading.upper() for heading, _ in columns], *cells]
    widths = [max(len(line[index]) for line in table) for index in range(len(columns))]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Prints `key: value` lines, aligned; fields without a value are left out."""
    present = [(key, shown(value)) for key, value in fields if value not in (None, "", (), {})]
    width = max((len(key) for key, _ in present), default=0) + 1
    for key, value in present:
        click.echo(f"{key + ':':<{width}} {value}")


def shown(value: object) -> str:
    """Returns a value as a person reads it, on one line."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={shown(each)}" for key, each in sorted(value.items()))
    return printable(" ".join(str(value).split()))


def printable(text: str) -> str:
    """Returns a text without what would command a terminal: models and data may hold anything."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def size(num_bytes: int) -> str:
    """Returns a size in decimal units with three digits: `1.23 GB`."""
    value = float(num_bytes)
    for unit in _UNITS:
        if value < 999.5 or unit == _UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    raise AssertionError


def clock(seconds: float) -> str:
    """Returns a duration: `0:42`, `12:07`, `3:00:59`."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def short(name: str | None) -> str:
    """Returns a resource name as it is typed: without the project, `model/3`, `model@alias`."""
    parts = (name or "").split("/")
    if len(parts) < 4:
        return parts[-1] or "-"
    if len(parts) < 6:
        return parts[3]
    return f"{parts[3]}@{parts[5]}" if parts[4] == "aliases" else f"{parts[3]}/{parts[5]}"


def revoked(revocations: "Iterable[Revocation]") -> str:
    """Returns which data was revoked, by whom, when and why, on one line; empty: none was."""
    return "; ".join(
        f"{short(each.name)} by {each.actor}, {shown(each.time)}: {each.reason}"
        if each.name
        else "data of another project"
        for each in revocations
    )


@contextlib.contextmanager
def transfer(label: str, paths: Iterable[Path] = (), *, total: int = 0) -> Iterator[Callable[[int], None] | None]:
    """Shows a bar for bytes that move, on a terminal only; yields what to tell them to."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total or sum(path.stat().st_size for path in paths if path.is_file()))
        yield lambda moved: progress.advance(task, moved)
