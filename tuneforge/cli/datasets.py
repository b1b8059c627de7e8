"""`tuneforge datasets`."""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import click

from tuneforge.cli.connection import CommandGroup, Connection, json_option
from tuneforge.cli.output import print_fields, print_json, print_rows, short, size, transfer
from tuneforge.cli.stopping import Stopped


class _Upload:
    """What a person sees of an upload: that rows are checked, a bar, and after Ctrl-C what was kept."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self._paths = paths
        self._is_sending = False
        self._stack = contextlib.ExitStack()
        self._advance: Callable[[int], None] | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console

            self._stack.enter_context(Console(stderr=True).status("checking rows"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if isinstance(error, KeyboardInterrupt):
            kept = "what was sent is kept, run the command again to go on" if self._is_sending else "nothing was sent"
            raise Stopped(f"stopped: no version was made; {kept}") from None

    def start(self) -> None:
        """The bar takes the place of the words."""
        self._is_sending = True
        self._stack.close()
        self._advance = self._stack.enter_context(transfer("uploading", self._paths))

    def moved(self, num_bytes: int) -> None:
        """Shows that bytes were sent."""
        if self._advance is not None:
            self._advance(num_bytes)


@click.group(cls=CommandGroup)
def datasets() -> None:
    """Rows to learn from."""


@datasets.command()
@click.argument("path", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--dataset", required=True, metavar="ID", help="The data set; made when missing.")
@click.option("--description", default="", help="Of a data set that is made.")
@json_option
@click.pass_obj
def upload(connection: Connection, path: tuple[Path, ...], dataset: str, description: str, as_json: bool) -> None:
    """Make a version from JSONL files. The same content gives the same version."""
    with connection.client() as client, _Upload(path) as shown:
        version = client.datasets.upload(
            path, dataset, description=description, progress=shown.moved, on_start=shown.start
        )
    if as_json:
        print_json(version)
    else:
        click.echo(f"{short(version.name)}: {version.rows} rows, {version.shape}, {size(version.size_bytes)}")


@datasets.command("list")
@json_option
@click.pass_obj
def list_datasets(connection: Connection, as_json: bool) -> None:
    """List the project's data sets."""
    with connection.client() as client:
        print_rows(
            client.datasets.list(),
            [
                ("dataset", lambda row: short(row.name)),
                ("latest", lambda row: short(row.latest_version)),
                ("created", lambda row: row.create_time),
                ("description", lambda row: row.description),
            ],
            as_json=as_json,
            nothing="no data sets; make one: tuneforge datasets upload FILE --dataset ID",
        )


@datasets.command()
@click.argument("version", metavar="DATASET[/VERSION]")
@json_option
@click.pass_obj
def show(connection: Connection, version: str, as_json: bool) -> None:
    """Show a version of a data set, the newest one without a number."""
    with connection.client() as client:
        found = client.datasets.version(version)
    if as_json:
        print_json(found)
        return
    print_fields(
        [
            ("name", found.name),
            ("rows", found.rows),
            ("shape", found.shape),
            ("size", size(found.size_bytes)),
            ("digest", found.manifest.digest),
            ("files", ", ".join(file.path for file in found.manifest.files)),
            ("created", found.create_time),
            ("creator", found.creator),
        ]
    )


@datasets.command()
@click.argument("dataset")
@json_option
@click.pass_obj
def versions(connection: Connection, dataset: str, as_json: bool) -> None:
    """List the versions of a data set, newest first."""
    with connection.client() as client:
        print_rows(
            client.datasets.versions(dataset),
            [
                ("version", lambda row: short(row.name)),
                ("rows", lambda row: row.rows),
                ("shape", lambda row: row.shape),
                ("size", lambda row: size(row.size_bytes)),
                ("digest", lambda row: row.manifest.digest[:12]),
                ("created", lambda row: row.create_time),
            ],
            as_json=as_json,
            nothing=f"no versions; make one: tuneforge datasets upload FILE --dataset {dataset}",
        )
