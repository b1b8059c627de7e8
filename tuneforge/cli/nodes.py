"""`tuneforge nodes`."""

import click

from tuneforge.cli.connection import CommandGroup, Connection, json_option
from tuneforge.cli.output import print_rows, short, size


@click.group(cls=CommandGroup)
def nodes() -> None:
    """Machines that train."""


@nodes.command("list")
@json_option
@click.pass_obj
def list_nodes(connection: Connection, as_json: bool) -> None:
    """List the scheduler's nodes."""
    with connection.client() as client:
        print_rows(
            client.nodes.list(),
            [
                ("node", lambda row: short(row.name)),
                ("state", lambda row: row.state),
                ("address", lambda row: row.address),
                ("devices", lambda row: ", ".join(device.model for device in row.devices) or "CPU"),
                ("cores", lambda row: f"{row.cpu_millis / 1000:g}"),
                ("memory", lambda row: size(row.memory_bytes)),
                ("slots", lambda row: f"{len(row.attempts)}/{row.slots}"),
                ("version", lambda row: row.version),
            ],
            as_json=as_json,
            nothing="no nodes; start a trainer with TUNEFORGE_SCHEDULER_ADDRESS set: python -m services.trainer",
        )
