"""`tuneforge nodes`."""

from datetime import datetime
from typing import TYPE_CHECKING

import click

from tuneforge.cli.connection import CommandGroup, Connection, json_option
from tuneforge.cli.moments import MOMENT
from tuneforge.cli.output import print_json, print_rows, short, size

if TYPE_CHECKING:
    from tuneforge.nodes import Node


def _drained(node: "Node") -> str:
    if node.drain is None:
        return "-"
    until = (
        f", its jobs leave at {node.drain.deadline.astimezone():%Y-%m-%d %H:%M}"
        if node.drain.deadline is not None
        else ""
    )
    return f"{node.drain.reason or 'by ' + node.drain.actor}{until}"


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
                ("drained", _drained),
            ],
            as_json=as_json,
            nothing="no nodes; start a trainer with TUNEFORGE_SCHEDULER_ADDRESS set: python -m services.trainer",
        )


@nodes.command()
@click.argument("node")
@click.option("--reason", default="", help="Why, for whoever reads the list of nodes.")
@click.option(
    "--deadline",
    type=MOMENT,
    metavar="WHEN",
    help="Its jobs go on elsewhere then: 2026-12-24T18:00, or +30m from now.  [default: they run to their end]",
)
@json_option
@click.pass_obj
def drain(connection: Connection, node: str, reason: str, deadline: datetime | None, as_json: bool) -> None:
    """Have a node take no new work, for its maintenance, until it is undrained."""
    with connection.client() as client:
        _print_changed(client.nodes.drain(node, reason=reason, deadline=deadline), as_json=as_json)


@nodes.command()
@click.argument("node")
@json_option
@click.pass_obj
def undrain(connection: Connection, node: str, as_json: bool) -> None:
    """Let a drained node take work again."""
    with connection.client() as client:
        _print_changed(client.nodes.undrain(node), as_json=as_json)


def _print_changed(node: "Node", *, as_json: bool) -> None:
    if as_json:
        print_json(node)
        return
    held = len(node.attempts)
    rest = (
        f", {held} {'attempt runs' if held == 1 else 'attempts run'} on it" if node.drain is not None and held else ""
    )
    click.echo(f"{short(node.name)}: {node.state}{rest}")
