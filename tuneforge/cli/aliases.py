"""`tuneforge aliases`."""

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from tuneforge.cli.connection import CommandGroup, ConnectedCommand, Connection, json_option
from tuneforge.cli.output import print_fields, print_json, print_rows, printable, short
from tuneforge.cli.stopping import stoppable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tuneforge.aliases import Alias, AliasChange


class _Moment(click.ParamType[datetime]):
    """A moment with a time zone; without one it is taken as UTC."""

    name = "time"

    def convert(self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Reads the text."""
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time; give one such as 2026-01-31, 2026-01-31T12:00 or ...+02:00", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


expected_option = click.option(
    "--expected", metavar="ETAG", help="Only if it still has this etag; `absent`: only if it does not exist."
)
reason_option = click.option("--reason", default="", help="Why, for the log.")
force_option = click.option("--force", is_flag=True, help="Against gates that refuse (admins; the log tells of it).")


class _AliasCommand(ConnectedCommand):
    """A command whose first arguments are MODEL ALIAS, or MODEL@ALIAS as it is printed everywhere."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Divides the short form, which may stand behind options."""
        options = [each for each in self.params if isinstance(each, click.Option) and not each.is_flag]
        with_value = {name for each in options for name in each.opts}
        takes_alias = any(parameter.name == "alias" for parameter in self.params)
        place = 0
        while place < len(args) and args[place].startswith("-"):
            place += 2 if args[place] in with_value else 1
        if takes_alias and place < len(args) and re.fullmatch(r"[^@]+@[^@]+", args[place]):
            args = [*args[:place], *args[place].split("@"), *args[place + 1 :]]
        return super().parse_args(ctx, args)


class AliasGroup(CommandGroup):
    """Commands that name an alias, in either form."""

    command_class = _AliasCommand


@click.group(cls=AliasGroup)
def aliases() -> None:
    """Names such as `production` that point to versions of a model, and the log of where they pointed when.

    MODEL ALIAS may be written MODEL@ALIAS too.
    """


@aliases.command("list")
@click.argument("model", required=False)
@json_option
@click.pass_obj
def list_aliases(connection: Connection, model: str | None, as_json: bool) -> None:
    """List the aliases of a model, or of all in the project."""
    with connection.client() as client:
        print_rows(
            client.aliases.list(model),
            [
                ("alias", lambda row: row.name.rpartition("/")[2] if model else short(row.name)),
                ("version", lambda row: short(row.version)),
                ("moved", lambda row: row.update_time),
                ("etag", lambda row: row.etag),
            ],
            as_json=as_json,
            nothing=f"no aliases; make one: tuneforge aliases set {model or 'MODEL'} production VERSION",
        )


@aliases.command()
@click.argument("model")
@click.argument("alias")
@click.option("--as-of", type=_Moment(), help="As it was then, e.g. 2026-01-31T12:00 (UTC unless it says otherwise).")
@json_option
@click.pass_obj
def show(connection: Connection, model: str, alias: str, as_of: datetime | None, as_json: bool) -> None:
    """Show what an alias names, or what it named at a moment."""
    with connection.client() as client:
        found = client.aliases.get(model, alias, as_of=as_of)
    if as_json:
        print_json(found)
        return
    fields: list[tuple[str, object]] = [
        ("name", found.name),
        ("version", found.version),
        ("move", found.sequence),
        ("moved", found.update_time),
    ]
    print_fields([*fields, ("as of", as_of)] if as_of else [*fields, ("etag", found.etag)])


@aliases.command("set")
@click.argument("model")
@click.argument("alias")
@click.argument("version")
@expected_option
@reason_option
@force_option
@json_option
@click.pass_obj
def set_alias(
    connection: Connection, /, model: str, alias: str, version: str, *, force: bool, as_json: bool, **flags: str
) -> None:
    """Point an alias to a version (a number, or MODEL/3, MODEL@ALIAS), if its gates let it."""
    with connection.client() as client:
        moved = client.aliases.set(
            model, alias, version, expected=flags["expected"], reason=flags["reason"], force=force
        )
    _tell(moved, as_json=as_json)


@aliases.command()
@click.argument("model")
@click.argument("alias")
@click.option("--to-move", type=click.IntRange(1), metavar="N", help="To what move N of its log gave it.")
@expected_option
@reason_option
@force_option
@json_option
@click.pass_obj
def rollback(
    connection: Connection,
    /,
    model: str,
    alias: str,
    *,
    to_move: int | None,
    force: bool,
    as_json: bool,
    **flags: str,
) -> None:
    """Point an alias back to the version before; each time one further back."""
    with connection.client() as client:
        moved = client.aliases.rollback(
            model, alias, to_move=to_move or 0, expected=flags["expected"], reason=flags["reason"], force=force
        )
    _tell(moved, as_json=as_json)


@aliases.command()
@click.argument("model")
@click.argument("alias")
@expected_option
@reason_option
@click.pass_obj
def delete(connection: Connection, model: str, alias: str, expected: str | None, reason: str) -> None:
    """Delete an alias; its log stays, and a rollback brings it back."""
    with connection.client() as client:
        client.aliases.delete(model, alias, expected=expected, reason=reason)
    click.echo(f"deleted {alias} of {model}; back again: tuneforge aliases rollback {model} {alias}", err=True)


@aliases.command("log")
@click.argument("model")
@click.argument("alias")
@json_option
@click.pass_obj
def alias_log(connection: Connection, model: str, alias: str, as_json: bool) -> None:
    """List the moves of an alias, newest first: who, when, why, and what the gates said."""
    with connection.client() as client:
        print_rows(
            client.aliases.log(model, alias),
            [
                ("move", lambda row: row.sequence),
                ("kind", lambda row: row.kind.lower()),
                ("from", lambda row: short(row.from_version)),
                ("to", lambda row: short(row.to_version)),
                ("gates", _gates_of),
                ("actor", lambda row: row.actor),
                ("time", lambda row: row.time),
                ("reason", lambda row: row.reason),
            ],
            as_json=as_json,
            nothing=f"it was never moved; tuneforge aliases set {model} {alias} VERSION",
        )


@aliases.command()
@click.argument("model", required=False)
@click.option("--cursor", default="", help="Go on where an earlier watch stood (told by --json).")
@json_option
@click.pass_obj
def watch(connection: Connection, model: str | None, cursor: str, as_json: bool) -> None:
    """Follow every move of a model's aliases, or of all in the project, until Ctrl-C."""
    from tuneforge._resumed_stream import WatchOptions

    def begin(found: "Sequence[Alias]") -> None:
        for alias in found:
            if as_json:
                print_json({"kind": "snapshot", "alias": alias})
            else:
                click.echo(f"{short(alias.name)} = {short(alias.version)}")

    options = WatchOptions(on_break=lambda error: click.echo(f"{error.message}; going on ...", err=True))
    with (
        stoppable("stopped watching; moves go on"),
        connection.client() as client,
        client.aliases.watch(model, cursor=cursor, options=options, on_snapshot=begin) as moves,
    ):
        for move in moves:
            if as_json:
                print_json({"kind": "move", "move": move, "cursor": moves.cursor})
            else:
                click.echo(_line(move))


def _line(move: "AliasChange") -> str:
    marks = " (forced)" if move.is_forced else ""
    why = f": {printable(move.reason)}" if move.reason else ""
    to = short(move.to_version) if move.to_version else "nothing"
    what = move.kind.lower()
    return f"{move.time:%Y-%m-%d %H:%M:%S} {short(move.name)} -> {to} [{what}] by {printable(move.actor)}{marks}{why}"


def _gates_of(move: "AliasChange") -> str:
    if move.is_forced:
        return "forced"
    if move.gates is None:
        return "-"
    skipped = f", {len(move.gates.skipped_policies)} skipped" if move.gates.skipped_policies else ""
    return f"{len(move.gates.results)} passed{skipped}"


def _tell(moved: "Alias", *, as_json: bool) -> None:
    if as_json:
        print_json(moved)
    else:
        click.echo(f"{short(moved.name)} -> {short(moved.version)}")
