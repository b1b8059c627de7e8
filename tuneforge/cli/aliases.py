"""`tuneforge aliases`."""

import click

from tuneforge.cli.connection import CommandGroup, Connection, json_option
from tuneforge.cli.output import print_json, print_rows, short


@click.group(cls=CommandGroup)
def aliases() -> None:
    """Names such as `production` that point to versions of a model, and the log of where they pointed when."""


@aliases.command("list")
@click.argument("model")
@json_option
@click.pass_obj
def list_aliases(connection: Connection, model: str, as_json: bool) -> None:
    """List the aliases of a model."""
    with connection.client() as client:
        print_rows(
            client.aliases.list(model),
            [
                ("alias", lambda row: row.name.rpartition("/")[2]),
                ("version", lambda row: short(row.version)),
                ("moved", lambda row: row.update_time),
                ("etag", lambda row: row.etag),
            ],
            as_json=as_json,
            nothing=f"no aliases; make one: tuneforge aliases set {model} production VERSION",
        )


@aliases.command("set")
@click.argument("model")
@click.argument("alias")
@click.argument("version")
@click.option("--expected", metavar="ETAG", help="Move it only if it still has this etag; `absent`: only make it.")
@click.option("--reason", default="", help="Why, for the alias' log.")
@json_option
@click.pass_obj
def set_alias(connection: Connection, /, model: str, alias: str, version: str, as_json: bool, **flags: str) -> None:
    """Point an alias to a version (a number, or MODEL/3, MODEL@ALIAS)."""
    with connection.client() as client:
        moved = client.aliases.set(model, alias, version, expected=flags["expected"], reason=flags["reason"])
    if as_json:
        print_json(moved)
    else:
        click.echo(f"{short(moved.name)} -> {short(moved.version)}")


@aliases.command("log")
@click.argument("model")
@click.argument("alias")
@json_option
@click.pass_obj
def alias_log(connection: Connection, model: str, alias: str, as_json: bool) -> None:
    """List the moves of an alias, newest first: who, when, why."""
    with connection.client() as client:
        print_rows(
            client.aliases.log(model, alias),
            [
                ("move", lambda row: row.sequence),
                ("from", lambda row: short(row.from_version)),
                ("to", lambda row: short(row.to_version)),
                ("actor", lambda row: row.actor),
                ("time", lambda row: row.time),
                ("reason", lambda row: row.reason),
            ],
            as_json=as_json,
            nothing=f"it was never moved; tuneforge aliases set {model} {alias} VERSION",
        )
