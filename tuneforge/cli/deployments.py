"""`tuneforge deployments`."""

import click

from tuneforge.cli.connection import CommandGroup, Connection, json_option
from tuneforge.cli.output import print_fields, print_json, print_rows, short
from tuneforge.cli.stopping import stoppable


@click.group(cls=CommandGroup)
def deployments() -> None:
    """Versions that answer."""


@deployments.command()
@click.argument("deployment")
@click.option("--model", required=True, metavar="MODEL[/VERSION|@ALIAS]", help="What to serve.")
@click.option("--wait/--no-wait", default=True, help="Return when it answers, or at once.  [default: wait]")
@click.option("--timeout-s", default=600.0, show_default=True, help="How long to wait, in seconds.")
@json_option
@click.pass_obj
def create(connection: Connection, deployment: str, model: str, as_json: bool, wait: bool, timeout_s: float) -> None:
    """Serve a version."""
    message = f"stopped waiting: it goes on loading; look at it: tuneforge deployments show {deployment}"
    with stoppable(message), connection.client() as client:
        made = client.deployments.create(deployment, model, wait=wait, timeout_s=timeout_s)
    if as_json:
        print_json(made)
    else:
        served = short(made.served.version.version if made.served else made.model)
        click.echo(f"{short(made.name)}: {made.state}, serves {served}")


@deployments.command("list")
@json_option
@click.pass_obj
def list_deployments(connection: Connection, as_json: bool) -> None:
    """List the project's deployments."""
    with connection.client() as client:
        print_rows(
            client.deployments.list(),
            [
                ("deployment", lambda row: short(row.name)),
                ("state", lambda row: row.state),
                ("model", lambda row: short(row.model)),
                ("version", lambda row: short(row.served.version.version) if row.served else "-"),
                ("base", lambda row: short(row.served.base.version) if row.served and row.served.base else "-"),
                ("created", lambda row: row.create_time),
            ],
            as_json=as_json,
            nothing="no deployments; make one: tuneforge deployments create ID --model MODEL",
        )


@deployments.command()
@click.argument("deployment")
@json_option
@click.pass_obj
def show(connection: Connection, deployment: str, as_json: bool) -> None:
    """Show a deployment and which bytes it serves."""
    with connection.client() as client:
        found = client.deployments.get(deployment)
    if as_json:
        print_json(found)
        return
    served = found.served
    print_fields(
        [
            ("name", found.name),
            ("state", found.state),
            ("model", found.model),
            ("version", served.version.version if served else None),
            ("digest", served.version.digest if served else None),
            ("base", served.base.version if served and served.base else None),
            ("base digest", served.base.digest if served and served.base else None),
            ("template", served.template_sha256 if served else None),
            ("failure", found.failure.message if found.failure else None),
            ("cure", found.failure.cure if found.failure else None),
            ("created", found.create_time),
            ("creator", found.creator),
        ]
    )


@deployments.command()
@click.argument("deployment")
@click.pass_obj
def delete(connection: Connection, deployment: str) -> None:
    """Stop serving; running requests are finished first."""
    with connection.client() as client:
        client.deployments.delete(deployment)
    click.echo(f"{deployment} is deleted")
