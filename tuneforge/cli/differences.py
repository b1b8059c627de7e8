"""`tuneforge models diff` and `tuneforge datasets diff`: in what two versions differ."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from tuneforge.cli.connection import ConnectedCommand, Connection, json_option
from tuneforge.cli.output import print_rows, short, size, to_plain

if TYPE_CHECKING:
    from tuneforge.manifest import Manifest

# What differs between any two versions, or repeats the files.
_LEFT_OUT: Final = frozenset(
    {"name", "manifest", "signature", "etag", "create_time", "creator", "architecture.tensors"}
)
_TEXT_SHOWN: Final = 48


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same in two versions; None where a version lacks it."""

    what: str
    one: Any
    other: Any


def differences(one: Any, other: Any) -> Iterator[Difference]:
    """Yields in what two versions of the same kind differ: facts, parts of the spec, figures, then files.

    Args:
        one: A `ModelVersion` or a `DatasetVersion`.
        other: Another one.
    """
    for before, after in ((_facts(one), _facts(other)), (_files(one.manifest), _files(other.manifest))):
        for what in dict.fromkeys((*before, *after)):
            if before.get(what) != after.get(what):
                yield Difference(what, before.get(what), after.get(what))


def _facts(version: Any) -> dict[str, Any]:
    return {name: value for name, value in _flat("", to_plain(version)) if value not in (None, "", [])}


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if name in _LEFT_OUT:
        return
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, each in value.items():
        yield from _flat(f"{name}.{key}" if name else key, each)


def _files(manifest: "Manifest") -> dict[str, str]:
    return {f"file {file.path}": f"{file.sha256[:12]} {size(file.size_bytes)}" for file in manifest.files}


def diff_command(kind: str) -> click.Command:
    """Returns the command of `models` or `datasets`."""
    form = "MODEL[/VERSION|@ALIAS]" if kind == "models" else "DATASET[/VERSION]"

    @click.command("diff", cls=ConnectedCommand)
    @click.argument("one", metavar=form)
    @click.argument("other", metavar=form)
    @json_option
    @click.pass_obj
    def diff(connection: Connection, one: str, other: str, as_json: bool) -> None:
        """Show in what two versions differ: what they were made from, settings, figures, files.

        Exit code 1 when they differ in anything but who made them when.
        """
        with connection.client() as client:
            versions = client.models.version if kind == "models" else client.datasets.version
            first, second = versions(one), versions(other)
        found = list(differences(first, second))
        columns = [
            ("what", lambda row: row.what),
            (short(first.name), lambda row: _cell(row.one)),
            (short(second.name), lambda row: _cell(row.other)),
        ]
        same = f"{short(first.name)} and {short(second.name)} are the same but for their names"
        print_rows(found, columns, as_json=as_json, nothing=same)
        if found:
            sys.exit(1)

    return diff


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, int | float):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = short(text) if text.startswith("projects/") else text
    return text if len(text) <= _TEXT_SHOWN else text[: _TEXT_SHOWN - 3] + "..."
