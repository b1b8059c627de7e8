"""`tuneforge gc`, `tuneforge retention`, and what models and data sets share: delete, pin, unpin, expire, kept."""

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from tuneforge.cli.connection import ConnectedCommand, Connection, json_option
from tuneforge.cli.output import print_fields, print_json, short, size

if TYPE_CHECKING:
    from tuneforge.client import Client
    from tuneforge.retention import Retention, VersionRetention

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LONGEST_SPAN = timedelta(days=36_500)


class DurationType(click.ParamType["timedelta | None"]):
    """A time span such as `90m`, `12h`, `30d` or `2w`, at most a hundred years, or one word that stands for none."""

    name = "duration"

    def __init__(self, word: str) -> None:
        self._word = word

    def convert(
        self, value: object, parameter: click.Parameter | None, context: click.Context | None
    ) -> timedelta | None:
        """Reads it; the word is None."""
        text = str(value)
        if text == self._word:
            return None
        found = re.fullmatch(r"(\d{1,9})([mhdw])", text)
        if found is None:
            self.fail(f"{text!r} is no time span; give e.g. 90m, 12h, 30d, 2w or {self._word}", parameter, context)
        span = timedelta(**{_UNITS[found[2]]: int(found[1])})
        if span > _LONGEST_SPAN:
            self.fail(f"{text!r} is more than a hundred years; give less, or {self._word}", parameter, context)
        return span


def _of(client: "Client", kind: str) -> "VersionRetention":
    return client.retention.models if kind == "models" else client.retention.datasets


def attach_retention(group: click.Group) -> None:
    """Gives a group (`models` or `datasets`) the commands of keeping and deleting."""
    kind = str(group.name)
    for make in (_delete_command, _pin_command, _unpin_command, _expire_command, _kept_command):
        group.add_command(make(kind))


def _delete_command(kind: str) -> click.Command:
    @click.command("delete", cls=ConnectedCommand)
    @click.argument("names", nargs=-1, required=True, metavar="NAME...")
    @click.option("--force", is_flag=True, help="With a whole one: its versions too. What is needed is refused anyway.")
    @click.option("--reason", default="", help="Why; kept for ever.")
    @json_option
    @click.pass_obj
    def delete(connection: Connection, names: tuple[str, ...], force: bool, reason: str, as_json: bool) -> None:
        """Delete versions (NAME/3), or the whole of NAME. Numbers are never given again; bytes go later.

        In the order given, until one is refused.
        """
        with connection.client() as client:
            keeping = _of(client, kind)
            for name in names:
                if "/" in name.removeprefix("projects/") and not re.fullmatch(r"projects/[^/]+/[^/]+/[^/]+", name):
                    done = keeping.delete_version(name, reason=reason)
                else:
                    done = keeping.delete(name, force=force, reason=reason)
                if as_json:
                    print_json(done)
                else:
                    versions = "" if "/versions/" in done.name else f" with {done.num_versions} versions"
                    click.echo(f"deleted {short(done.name)}{versions}")

    return delete


def _pin_command(kind: str) -> click.Command:
    @click.command("pin", cls=ConnectedCommand)
    @click.argument("version")
    @click.option("--reason", required=True, help="Why it is to be kept; each reason pins on its own.")
    @json_option
    @click.pass_obj
    def pin(connection: Connection, version: str, reason: str, as_json: bool) -> None:
        """Keep a version from deletion until it is unpinned."""
        with connection.client() as client:
            _print_retention(_of(client, kind).pin(version, reason), as_json=as_json)

    return pin


def _unpin_command(kind: str) -> click.Command:
    @click.command("unpin", cls=ConnectedCommand)
    @click.argument("version")
    @click.option("--reason", default="", help="The pin to remove; without it all of them.")
    @json_option
    @click.pass_obj
    def unpin(connection: Connection, version: str, reason: str, as_json: bool) -> None:
        """Remove the pins of a version."""
        with connection.client() as client:
            _print_retention(_of(client, kind).unpin(version, reason), as_json=as_json)

    return unpin


def _expire_command(kind: str) -> click.Command:
    @click.command("expire", cls=ConnectedCommand)
    @click.argument("version")
    @click.argument("after", type=DurationType("never"))
    @json_option
    @click.pass_obj
    def expire(connection: Connection, version: str, after: timedelta | None, as_json: bool) -> None:
        """Let a version be deleted by itself AFTER a time (30d, 12h), or `never`. While it is needed it stays."""
        with connection.client() as client:
            when = None if after is None else datetime.now(UTC) + after
            _print_retention(_of(client, kind).expire(version, when), as_json=as_json)

    return expire


def _kept_command(kind: str) -> click.Command:
    @click.command("kept", cls=ConnectedCommand)
    @click.argument("version")
    @json_option
    @click.pass_obj
    def kept(connection: Connection, version: str, as_json: bool) -> None:
        """Tell what keeps a version: who needs it, its pins, when it expires."""
        with connection.client() as client:
            _print_retention(_of(client, kind).get(version), as_json=as_json)

    return kept


def _print_retention(retention: "Retention", *, as_json: bool) -> None:
    if as_json:
        print_json(retention)
        return
    print_fields(
        [
            ("version", short(retention.name)),
            *((f"pinned by {pin.actor}", pin.reason) for pin in retention.pins),
            ("expires", retention.expire_time or "never"),
            *(
                (
                    f"needed by {holder.kind.lower().replace('_', ' ')}",
                    short(holder.name) if holder.name else "in a project of others",
                )
                for holder in retention.holders
                if holder.kind != "PIN"
            ),
        ]
    )


@click.command("gc", cls=ConnectedCommand)
@click.option("--validate-only", is_flag=True, help="Only tell what would go.")
@json_option
@click.pass_obj
def gc(connection: Connection, validate_only: bool, as_json: bool) -> None:
    """Free what nothing needs, in all projects: expired versions, uploads given up, blobs that nothing needs."""
    with connection.client() as client:
        found = client.retention.collect(validate_only=validate_only)
    if as_json:
        print_json(found)
        return
    print_fields(
        [
            ("would free" if validate_only else "freed", f"{size(found.freed_bytes)} in {found.num_contents} contents"),
            ("blobs", found.num_blobs),
            ("of them lost", found.num_orphans or None),
            ("uploads given up", found.num_uploads or None),
            ("versions expired", found.num_expired_versions or None),
            ("expired but needed", found.num_held_versions or None),
            ("left for later", found.num_failures or None),
        ]
    )


@click.command("retention", cls=ConnectedCommand)
@click.option(
    "--uploads", type=DurationType("default"), help="Keep unfinished uploads for this long (7d), or `default`."
)
@click.option("--release", "holder", metavar="HOLDER", help="Take back what this job or deployment holds.")
@json_option
@click.pass_context
def retention(context: click.Context, uploads: timedelta | None, holder: str | None, as_json: bool) -> None:
    """Show or set for how long the project keeps uploads that nobody goes on with.

    --release is for a job or a deployment, by its whole name, whose service is gone for ever. One that is still there
    holds again what it needs.
    """
    connection: Connection = context.obj
    if holder is not None:
        with connection.client() as client:
            released = client.retention.release(holder)
        if as_json:
            print_json({"holder": holder, "num_released": released})
        else:
            click.echo(f"{short(holder)}: {released} versions released")
        return
    is_given = context.get_parameter_source("uploads") is not click.core.ParameterSource.DEFAULT
    with connection.client() as client:
        rules = client.retention
        kept = rules.set_unfinished_uploads(uploads) if is_given else rules.unfinished_uploads()
    if as_json:
        print_json({"unfinished_uploads_s": None if kept is None else kept.total_seconds()})
    else:
        print_fields([("unfinished uploads", "as the registry is set" if kept is None else str(kept))])
