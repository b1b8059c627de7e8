"""`tuneforge datasets`."""

import contextlib
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import click

from tuneforge.cli.connection import CommandGroup, Connection, json_option
from tuneforge.cli.differences import diff_command
from tuneforge.cli.downloads import download_command
from tuneforge.cli.imports import AGAIN, origin
from tuneforge.cli.output import print_fields, print_json, print_rows, revoked, short, size, transfer
from tuneforge.cli.stopping import Stopped, note_advice
from tuneforge.errors import Unavailable

_SHAPES: Final = (
    "MESSAGES",
    "PROMPT_COMPLETION",
    "INSTRUCTION",
    "SHAREGPT",
    "TEXT",
    "PREFERENCE",
    "TEXT_LABEL",
    "IMAGE_LABEL",
    "CLICK_SESSION",
)
"""As `tuneforge.RowShape`, which is not imported before it is needed."""


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
        if isinstance(error, Unavailable) and self._is_sending:
            note_advice(error, AGAIN)
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


datasets.add_command(diff_command("datasets"))
datasets.add_command(download_command("datasets"))


@datasets.command()
@click.argument("path", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--dataset", required=True, metavar="ID", help="The data set; made when missing.")
@click.option("--description", default="", help="Of a data set that is made.")
@click.option(
    "--validation",
    "ratio",
    type=click.FloatRange(0.0, 0.5),
    default=0.0,
    metavar="SHARE",
    help="Share of the rows that is for validation, 0 (none) to 0.5. A row's side depends on its content alone.",
)
@click.option("--split-seed", type=click.IntRange(0, 2**63 - 1), default=0, help="Another one divides differently.")
@click.option("--config", default="", metavar="NAME", help="Of a folder whose README.md names several.")
@json_option
@click.pass_obj
def upload(
    connection: Connection,
    path: tuple[Path, ...],
    dataset: str,
    description: str,
    ratio: float,
    split_seed: int,
    config: str,
    as_json: bool,
) -> None:
    """Make a version from files or a folder. The same content and split give the same version.

    Takes JSONL, JSON, CSV, Parquet, Arrow and text, also as .gz or .zst, folders of images (a folder's name is the
    label), and Hugging Face data set folders. Names with train, validation or test in them divide the rows.
    """
    from tuneforge._dataset_files import files_of
    from tuneforge.cli.dataset_view import summary

    files = files_of(path[0] if len(path) == 1 else path, config=config)
    with connection.client() as client, _Upload(tuple(files.values())) as shown:
        version = client.datasets.upload(
            path[0] if len(path) == 1 else path,
            dataset,
            description=description,
            validation_ratio=ratio,
            seed=split_seed,
            config=config,
            progress=shown.moved,
            on_start=shown.start,
        )
    if as_json:
        print_json(version)
        return
    click.echo(f"{short(version.name)}: {version.rows} rows, {version.shape}, {size(version.size_bytes)}")
    for line in summary(version):
        click.echo(f"  {line}")


@datasets.command()
@click.argument("version", metavar="DATASET[/VERSION]")
@click.argument("ratio", type=click.FloatRange(0.0, 0.5), metavar="SHARE")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, help="Another one divides differently.")
@json_option
@click.pass_obj
def split(connection: Connection, version: str, ratio: float, seed: int, as_json: bool) -> None:
    """Make a version of the same files of which SHARE (0 to 0.5) is for validation; no byte is moved."""
    from tuneforge.cli.dataset_view import summary

    with connection.client() as client:
        made = client.datasets.split(version, ratio, seed=seed)
    if as_json:
        print_json(made)
        return
    click.echo(f"{short(made.name)}: {made.rows} rows, {made.shape}, {size(made.size_bytes)}")
    for line in summary(made):
        click.echo(f"  {line}")


@datasets.command("list")
@click.option("--tag", "tags", multiple=True, help="Only those with this tag; may be given several times.")
@click.option("--shape", type=click.Choice(_SHAPES))
@click.option("--query", default="", help="Only those with this in their id or description.")
@json_option
@click.pass_obj
def list_datasets(connection: Connection, tags: tuple[str, ...], shape: str | None, query: str, as_json: bool) -> None:
    """List the project's data sets."""
    from tuneforge.dataset_values import RowShape

    with connection.client() as client:
        print_rows(
            client.datasets.list(tags=tags, shape=RowShape(shape) if shape else None, query=query),
            [
                ("dataset", lambda row: short(row.name)),
                ("latest", lambda row: short(row.latest_version)),
                ("created", lambda row: row.create_time),
                ("tags", lambda row: ", ".join(row.tags)),
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
    from tuneforge.cli.dataset_view import summary

    with connection.client() as client:
        found = client.datasets.version(version)
        if as_json:
            print_json(found)
            return
        about = client.datasets.get(found.name.partition("/versions/")[0])
    print_fields(
        [
            ("name", found.name),
            ("description", about.description),
            ("tags", ", ".join(about.tags)),
            ("metadata", about.metadata),
            ("revoked", revoked(found.revocations)),
            ("rows", found.rows),
            ("shape", found.shape),
            ("format", "" if found.format == "UNKNOWN" else found.format),
            ("size", size(found.size_bytes)),
            ("digest", found.manifest.digest),
            ("files", ", ".join(file.path for file in found.manifest.files)),
            ("source", origin(found.source)),
            ("created", found.create_time),
            ("creator", found.creator),
        ]
    )
    for line in summary(found):
        click.echo(line)


@datasets.command()
@click.argument("version", metavar="DATASET[/VERSION]")
@click.option("--limit", type=click.IntRange(1, 100_000), default=10, show_default=True, help="Most rows.")
@click.option("--side", type=click.Choice(["train", "validation", "test"]), help="Only rows of this side.")
@click.option("--id", "row_id", default="", metavar="DIGITS", help="Only rows whose id begins so, 4 digits or more.")
@json_option
@click.pass_obj
def rows(connection: Connection, version: str, limit: int, side: str | None, row_id: str, as_json: bool) -> None:
    """Show rows of a version, with the file and line that each comes from."""
    from tuneforge.cli.dataset_view import row_lines
    from tuneforge.dataset_values import SplitSide

    with connection.client() as client:
        wanted = SplitSide(side.upper()) if side else None
        found = itertools.islice(client.datasets.rows(version, side=wanted, row_id=row_id), limit)
        if as_json:
            for row in found:
                print_json(row)
            return
        is_empty = True
        for row in found:
            is_empty = False
            click.echo("\n".join(row_lines(row)))
        if is_empty:
            click.echo("no such rows", err=True)


@datasets.command()
@click.argument("dataset")
@click.option("--description")
@click.option("--tag", "tags", multiple=True, help="All of its tags from now on; give --no-tags for none.")
@click.option("--no-tags", is_flag=True)
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="All of its metadata from now on.")
@json_option
@click.pass_obj
def update(
    connection: Connection,
    dataset: str,
    description: str | None,
    tags: tuple[str, ...],
    no_tags: bool,
    pairs: tuple[str, ...],
    as_json: bool,
) -> None:
    """Change what people say of a data set: description, tags, metadata."""
    if any("=" not in pair for pair in pairs):
        raise click.UsageError("--set takes KEY=VALUE")
    if description is None and not tags and not no_tags and not pairs:
        raise click.UsageError("nothing to change: give --description, --tag, --no-tags or --set")
    metadata = dict(pair.split("=", 1) for pair in pairs) if pairs else None
    with connection.client() as client:
        changed = client.datasets.update(
            dataset, description=description, tags=tags if tags or no_tags else None, metadata=metadata
        )
    if as_json:
        print_json(changed)
        return
    print_fields(
        [
            ("name", changed.name),
            ("description", changed.description),
            ("tags", ", ".join(changed.tags)),
            ("metadata", changed.metadata),
            ("changed", changed.update_time),
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
