"""`tuneforge datasets import` and what `tuneforge models import` does with an address."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuneforge.cli.connection import Connection, json_option
from tuneforge.cli.output import print_json, printable, short, size, transfer
from tuneforge.cli.stopping import stoppable

if TYPE_CHECKING:
    from tuneforge.imports import ImportProgress, OnImportProgress
    from tuneforge.models import ModelVersion
    from tuneforge.origins import Source

AGAIN = "stopped: no version was made; what has arrived at the registry is kept, run the command again to go on"


@click.command("import")
@click.argument("uri")
@click.option("--dataset", required=True, metavar="ID", help="The data set; made when missing.")
@click.option("--description", default="", help="Of a data set that is made.")
@click.option("--connection", "connection_name", default="", metavar="NAME", help="The operator's, with credentials.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Files to take, e.g. 'data/*.parquet'; repeatable.")
@click.option("--source-split", default="", help="Which split of the source to take; `train` where there are several.")
@click.option("--config", "source_config", default="", metavar="NAME", help="Of a hub's data set that has several.")
@click.option("--validation", "ratio", type=click.FloatRange(0, 0.5), default=0.0, help="Share of rows for validation.")
@click.option("--split-seed", type=click.IntRange(0, 2**63 - 1), default=0, help="Another one divides differently.")
@click.option("--here", is_flag=True, help="A package:// address is one of this machine, and is uploaded.")
@json_option
@click.pass_obj
def import_dataset(connection: Connection, /, uri: str, dataset: str, as_json: bool, **options: Any) -> None:
    """Have the registry fetch a data set: https://, s3://bucket/prefix, hf://owner/name[@revision], package://name/path.

    The same content gives the same version.
    """
    from tuneforge.imports import ImportOptions, package_path

    description = options["description"]
    if options["here"]:
        path = package_path(uri)
        files = sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else [path]
        with stoppable(AGAIN), connection.client() as client, transfer("uploading", files) as moved:
            version = client.datasets.upload(
                files,
                dataset,
                description=description,
                validation_ratio=options["ratio"],
                seed=options["split_seed"],
                progress=moved,
            )
    else:
        wanted = ImportOptions(
            connection=options["connection_name"],
            include=tuple(options["include"]),
            source_split=options["source_split"],
            source_config=options["source_config"],
            validation_ratio=options["ratio"],
            seed=options["split_seed"],
        )
        with stoppable(AGAIN), connection.client() as client, fetching() as progress:
            version = client.datasets.import_from(
                uri, dataset, description=description, options=wanted, progress=progress
            )
    if as_json:
        print_json(version)
    else:
        click.echo(f"{short(version.name)}: {version.rows} rows, {version.shape}, {size(version.size_bytes)}")


@contextlib.contextmanager
def fetching() -> "Iterator[OnImportProgress | None]":
    """Shows how far an import is, on a terminal only; yields what to tell it to."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("asking", total=None)

        def show(progress: "ImportProgress") -> None:
            total = progress.size_bytes or None
            bar.update(task, description=words(progress), completed=progress.bytes_done, total=total)

        yield show


def origin(source: "Source | None") -> str | None:
    """Returns where a version came from, on one line; None for an upload."""
    if source is None:
        return None
    return f"{source.uri} {source.revision[:12]}".rstrip()


def words(progress: "ImportProgress") -> str:
    """Returns what an import is doing, in a few words."""
    from tuneforge.imports import ImportPhase

    if progress.phase == ImportPhase.EXAMINING:
        return f"examining {progress.files} files"
    if progress.file:
        return f"{progress.files_done + 1}/{progress.files} {printable(progress.file)[-40:]}"
    return "asking" if progress.phase == ImportPhase.LISTING else f"{progress.files_done}/{progress.files} files"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelImport:
    """What `tuneforge models import` was asked for."""

    origin: str
    """A folder of this machine, or an address."""
    model: str
    description: str = ""
    connection_name: str = ""
    include: tuple[str, ...] = ()
    here: bool = False
    adapter_of: str = ""
    """The base of an adapter; empty for everything else."""
    config_only: bool = False
    seed: int = 0

    def run(self, connection: Connection) -> "ModelVersion":
        """Makes the version, with what a person sees of it."""
        from tuneforge.imports import ImportOptions, is_address, package_path

        origin = str(package_path(self.origin)) if self.here else self.origin
        if is_address(origin):
            if self.config_only:
                raise click.UsageError("--config-only takes a folder or a config.json of this machine, no address")
            wanted = ImportOptions(connection=self.connection_name, include=self.include, base=self.adapter_of)
            with stoppable(AGAIN), connection.client() as client, fetching() as progress:
                return client.models.import_from(
                    origin, self.model, description=self.description, options=wanted, progress=progress
                )
        folder = Path(origin)
        files = folder.iterdir() if folder.is_dir() else ()
        with stoppable(AGAIN), connection.client() as client, transfer("uploading", files) as moved:
            told: dict[str, Any] = {"description": self.description, "progress": moved}
            if self.adapter_of:
                return client.models.import_adapter(folder, self.model, base=self.adapter_of, **told)
            if self.config_only:
                return client.models.import_config(folder, self.model, seed=self.seed, **told)
            return client.models.import_folder(folder, self.model, description=self.description, progress=moved)
