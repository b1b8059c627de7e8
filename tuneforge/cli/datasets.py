"""`tuneforge datasets`."""

from pathlib import Path

import click

from tuneforge.cli.connection import CommandGroup, Connection, json_option
from tuneforge.cli.output import print_fields, print_json, print_rows, short, size, transfer
from tuneforge.cli.stopping import stoppable


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
    again = "stopped: no version was made; what was sent is kept, run the command again to go on"
    with stoppable(again), connection.client() as client, transfer("uploading", path) as progress:
        version = client.datasets.upload(path, dataset, description=description, progress=progress)
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
