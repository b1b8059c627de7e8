"""`tuneforge models download` and `tuneforge datasets download`: the files of a version, verified."""

from pathlib import Path

import click

from tuneforge.cli.connection import ConnectedCommand, Connection, json_option
from tuneforge.cli.output import print_json, short, size, transfer
from tuneforge.cli.stopping import stoppable

_AGAIN = "stopped: files that are whole stay, parts are hidden; run the command again to go on"


def download_command(kind: str) -> click.Command:
    """Returns the command of `models` or `datasets`."""
    form = "MODEL[/VERSION|@ALIAS]" if kind == "models" else "DATASET[/VERSION]"

    @click.command("download", cls=ConnectedCommand)
    @click.argument("version", metavar=form)
    @click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
    @click.option("--include", multiple=True, metavar="PATTERN", help="Only files such as '*.json'; repeatable.")
    @json_option
    @click.pass_obj
    def download(connection: Connection, version: str, folder: Path, include: tuple[str, ...], as_json: bool) -> None:
        """Bring the files of a version into a folder, each verified by its digest."""
        from tuneforge._downloads import wanted_files

        with stoppable(_AGAIN), connection.client() as client:
            versions = client.models if kind == "models" else client.datasets
            wanted = wanted_files(versions.version(version).manifest, include)
            with transfer("downloading", total=wanted.size_bytes) as progress:
                found = versions.download(version, folder, include=include, progress=progress)
        if as_json:
            print_json(found)
        else:
            click.echo(f"{short(found.name)}: {len(wanted.files)} files, {size(wanted.size_bytes)} in {folder}")

    return download
