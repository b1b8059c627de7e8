"""`tuneforge promotions`."""

import sys
from typing import TYPE_CHECKING

import click

from tuneforge.cli.aliases import reason_option
from tuneforge.cli.connection import CommandGroup, Connection, json_option
from tuneforge.cli.output import print_fields, print_json, print_rows, short, size
from tuneforge.cli.stopping import stoppable

if TYPE_CHECKING:
    from tuneforge.promotions import Promotion


@click.group(cls=CommandGroup)
def promotions() -> None:
    """Copies of versions in the operator's deploy location."""


@promotions.command()
@click.argument("version", metavar="MODEL/VERSION")
@click.argument("path", metavar="DOMAIN/ALGORITHM/APPLICATION")
@click.option(
    "--files", "patterns", multiple=True, metavar="PATTERN", help="Only files such as *.json; may be repeated."
)
@reason_option
@click.option("--no-wait", is_flag=True, help="Do not wait until the copy is whole.")
@json_option
@click.pass_obj
def promote(
    connection: Connection, /, version: str, path: str, *, patterns: tuple[str, ...], no_wait: bool, **flags: str
) -> None:
    """Copy a version to the deploy location; it becomes visible as a whole. Exit code 1 when that fails."""
    with stoppable("stopped waiting; the copy goes on"), connection.client() as client:
        promotion = client.promotions.promote(version, path, patterns=patterns, reason=flags["reason"])
        if not no_wait:
            promotion = client.promotions.wait(promotion.version)
    _tell(promotion, as_json=bool(flags["as_json"]))


@promotions.command()
@click.argument("version", metavar="MODEL/VERSION")
@reason_option
@click.option("--no-wait", is_flag=True, help="Do not wait until the copy is gone.")
@json_option
@click.pass_obj
def unpromote(connection: Connection, version: str, *, reason: str, no_wait: bool, as_json: bool) -> None:
    """Remove the copy of a version. Exit code 1 when that fails: it is completed again then."""
    with stoppable("stopped waiting; the removal goes on"), connection.client() as client:
        promotion = client.promotions.unpromote(version, reason=reason)
        if not no_wait:
            promotion = client.promotions.wait(promotion.version)
    _tell(promotion, as_json=as_json)


@promotions.command()
@click.argument("version", metavar="MODEL/VERSION")
@json_option
@click.pass_obj
def show(connection: Connection, version: str, as_json: bool) -> None:
    """Show how it stands with the promotion of a version, and how it came to that."""
    with connection.client() as client:
        found = client.promotions.get(version)
    if as_json:
        print_json(found)
        return
    print_fields(
        [
            ("version", found.version),
            ("state", found.state),
            ("destination", found.destination),
            ("files", f"{found.num_files}, {size(found.size_bytes)}" if found.num_files else None),
            ("patterns", ", ".join(found.patterns)),
            ("digest", found.digest),
            ("message", found.message),
        ]
    )
    for change in found.changes:
        why = f": {change.reason or change.message}" if change.reason or change.message else ""
        click.echo(f"  {change.time:%Y-%m-%d %H:%M:%S} {change.state} by {change.actor}{why}")


@promotions.command("list")
@json_option
@click.pass_obj
def list_promotions(connection: Connection, as_json: bool) -> None:
    """List the project's promotions."""
    with connection.client() as client:
        print_rows(
            client.promotions.list(),
            [
                ("version", lambda row: short(row.version)),
                ("state", lambda row: row.state),
                ("destination", lambda row: row.destination),
                ("size", lambda row: size(row.size_bytes)),
                ("since", lambda row: row.update_time),
                ("message", lambda row: row.message),
            ],
            as_json=as_json,
            nothing="nothing was promoted; tuneforge promotions promote MODEL/VERSION DOMAIN/ALGORITHM/APPLICATION",
        )


def _tell(promotion: "Promotion", *, as_json: bool) -> None:
    if as_json:
        print_json(promotion)
    else:
        why = f": {promotion.message}" if promotion.message else ""
        click.echo(f"{short(promotion.version)}: {promotion.state} {promotion.destination}{why}")
    asked = {change.state for change in promotion.changes[:2]}
    if promotion.state == "FAILED" or (promotion.state == "COMPLETED" and "DELETING" in asked):
        sys.exit(1)
