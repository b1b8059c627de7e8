"""`tuneforge lineage`, and what it adds to `datasets`, `models` and `jobs`: revocation, verification, records."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from tuneforge.cli.connection import CommandGroup, Connection, json_option
from tuneforge.cli.output import print_fields, print_json, print_rows, printable, short, transfer
from tuneforge.errors import NotFound, Reason, TuneforgeError

if TYPE_CHECKING:
    from tuneforge.client import Client
    from tuneforge.dataset_values import DatasetVersion
    from tuneforge.lineage import AffectedAlias, Direction, LineageGraph
    from tuneforge.model_values import ModelVersion


@click.group(cls=CommandGroup)
def lineage() -> None:
    """What was made from what.

    Names: `models/m/3`, `models/m@production`, `datasets/d/1`, `datasets/d`, `jobs/j`, whole names. Just `x/3` is
    version 3 of the model or data set `x`; where both exist, say `models/x/3` or `datasets/x/3`.
    """


@lineage.command()
@click.argument("name")
@click.option("--up", "direction", flag_value="ancestors", default=True, help="What it was made from (the default).")
@click.option("--down", "direction", flag_value="descendants", help="What was made from it.")
@click.option("--depth", type=click.IntRange(0), default=0, help="Most steps from the start; 0: any.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=200, show_default=True, help="Most things.")
@json_option
@click.pass_obj
def show(connection: Connection, name: str, direction: str, depth: int, limit: int, as_json: bool) -> None:
    """Show a thing and what hangs together with it, as a tree."""
    from tuneforge.lineage_drawing import tree

    way = cast("Direction", direction)
    with connection.client() as client:
        graph = client.lineage.graph(name, direction=way, max_depth=depth, limit=limit)
    if as_json:
        print_json(graph)
        return
    for line in tree(graph, way, _short):
        click.echo(line)
    _say_cut(graph, limit)


@lineage.command()
@click.argument("name")
@click.argument("other")
@json_option
@click.pass_obj
def path(connection: Connection, name: str, other: str, as_json: bool) -> None:
    """Show the shortest way between two things. Exit code 1 when neither was made from the other."""
    with connection.client() as client:
        graph = client.lineage.path(name, other)
    if as_json:
        print_json(graph)
    else:
        roles = {(edge.child, edge.parent): edge.role.value.lower() for edge in graph.edges}
        for index, node in enumerate(graph.nodes):
            role = roles.get((graph.nodes[index - 1].name, node.name), "") if index else ""
            mark = "" if node.state.value == "LIVE" else f"  [{node.state}]"
            click.echo(f"{f'  └─ {role}: ' if role else ''}{_short(node.name)}{mark}")
    if not graph.nodes:
        click.echo(f"neither of {name} and {other} was made from the other", err=True)
        sys.exit(1)


@lineage.command()
@click.argument("name")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The SVG file to write.")
@click.option("--up", "direction", flag_value="ancestors", default=True, help="What it was made from (the default).")
@click.option("--down", "direction", flag_value="descendants", help="What was made from it.")
@click.option("--both", "direction", flag_value="both", help="Both.")
@click.option("--limit", type=click.IntRange(1, 2000), default=150, show_default=True, help="Most things each way.")
@click.pass_obj
def draw(connection: Connection, name: str, out: Path, direction: str, limit: int) -> None:
    """Draw a thing and what hangs together with it."""
    from tuneforge.lineage_drawing import svg

    with connection.client() as client:
        graph = _around(client, name, direction, limit)
    out.write_text(svg(graph, _short), encoding="utf-8")
    click.echo(f"{len(graph.nodes)} things drawn in {out}", err=True)
    _say_cut(graph, limit)


@lineage.command()
@click.argument("dataset")
@json_option
@click.pass_obj
def affected(connection: Connection, dataset: str, as_json: bool) -> None:
    """List the aliases that must move if a data set (`d`) or a version of it (`d/1`) is revoked.

    Also for a version of a model, `models/m/1`, or a job, `jobs/j`: the aliases of it and of what was made from it.
    """
    name = dataset if dataset.startswith(("projects/", "datasets/", "models/", "jobs/")) else f"datasets/{dataset}"
    with connection.client() as client:
        try:
            found = list(client.lineage.affected_aliases(name))
        except NotFound as error:
            raise _about_a_model(client, dataset) or error from None
        _print_aliases(found, as_json=as_json)


@click.command("revoke")
@click.argument("dataset")
@click.option("--reason", required=True, help="Why; told to everyone who is refused because of it.")
@click.option("--validate-only", is_flag=True, help="Tell what would be affected, and mark nothing.")
@json_option
@click.pass_obj
def revoke(connection: Connection, dataset: str, reason: str, validate_only: bool, as_json: bool) -> None:
    """Revoke a data set or a version of it: nothing new may be made from it."""
    with connection.client() as client:
        done = client.lineage.revoke(dataset, reason=reason, validate_only=validate_only)
    if as_json:
        print_json(done)
        return
    counts = {kind.lower().replace("_", " "): count for kind, count in done.num_downstream.items()}
    print_fields(
        [
            ("would be revoked" if done.revocation.time is None else "revoked", short(done.revocation.name)),
            ("reason", done.revocation.reason),
            ("by", done.revocation.actor),
            ("at", done.revocation.time),
            ("made from it", counts or "nothing"),
        ]
    )
    if done.aliases:
        click.echo("aliases that must move:")
    _print_aliases(list(done.aliases), as_json=False)


@click.command("unrevoke")
@click.argument("dataset")
@click.option("--reason", required=True, help="Why.")
@click.pass_obj
def unrevoke(connection: Connection, dataset: str, reason: str) -> None:
    """Take a revocation back; the log keeps both."""
    with connection.client() as client:
        change = client.lineage.unrevoke(dataset, reason=reason)
    click.echo(f"{short(change.name)} may be used again")


@click.command("revocations")
@click.argument("dataset", default="")
@json_option
@click.pass_obj
def revocations(connection: Connection, dataset: str, as_json: bool) -> None:
    """List the log of revocations: of the project, a data set or a version of one; newest first."""
    with connection.client() as client:
        print_rows(
            client.lineage.revocations(dataset),
            [
                ("time", lambda row: row.time),
                ("data", lambda row: short(row.name)),
                ("what", lambda row: "revoked" if row.is_revoked else "taken back"),
                ("by", lambda row: row.actor),
                ("reason", lambda row: row.reason),
            ],
            as_json=as_json,
            nothing="nothing was ever revoked here",
        )


@click.command("verify")
@click.argument("version")
@json_option
@click.pass_obj
def verify_model(connection: Connection, version: str, as_json: bool) -> None:
    """Have the registry read every byte of a model version again. Exit code 1 when something is wrong."""
    with connection.client() as client:
        found = client.models.version(version)
        _verify(client, found.name, found.size_bytes, as_json=as_json)


@click.command("verify")
@click.argument("version")
@json_option
@click.pass_obj
def verify_dataset(connection: Connection, version: str, as_json: bool) -> None:
    """Have the registry read every byte of a data set version again. Exit code 1 when something is wrong."""
    with connection.client() as client:
        found = client.datasets.version(version)
        _verify(client, found.name, found.size_bytes, as_json=as_json)


@click.command("repair")
@click.argument("version", metavar="MODEL[/VERSION|@ALIAS]")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
@click.pass_obj
def repair_model(connection: Connection, version: str, folder: Path, as_json: bool) -> None:
    """Put back what is damaged of a model version, from a folder with its files; the version stays the same."""
    with connection.client() as client:
        found = client.models.version(version)
        _repair(client, found, folder, as_json=as_json)


@click.command("repair")
@click.argument("version")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
@click.pass_obj
def repair_dataset(connection: Connection, version: str, folder: Path, as_json: bool) -> None:
    """Put back what is damaged of a data set version, from a folder with its files; the version stays the same."""
    with connection.client() as client:
        found = client.datasets.version(version)
        _repair(client, found, folder, as_json=as_json)


@click.command("signing-key")
@click.argument("key_id", default="")
@click.pass_obj
def signing_key(connection: Connection, key_id: str) -> None:
    """Print the public key that versions are signed with, or an earlier one, for `model_signing verify key`."""
    with connection.client() as client:
        found = client.signing.key(key_id)
    click.echo(found.key.pem, nl=False)
    click.echo(f"key id {found.key.key_id}", err=True)


@click.command("verify-record")
@click.argument("job")
@json_option
@click.pass_obj
def verify_record(connection: Connection, job: str, as_json: bool) -> None:
    """Say whether the events of a finished job are those that its version recorded. Exit code 1 when they are not."""
    from tuneforge import records

    with connection.client() as client:
        check = records.verify_record(client, job)
    if as_json:
        print_json(check)
    elif check.is_intact:
        checked = check.recorded.num_events - check.compacted_through
        click.echo(f"{checked} events of {short(check.job)} are those recorded in {short(check.version)}")
        if check.compacted_through:
            click.echo(f"events up to {check.compacted_through} were thinned out: what they were cannot be checked")
    else:
        click.echo(f"{short(check.job)} is not as it was recorded in {short(check.version)}: {check.problem}", err=True)
    if not check.is_intact:
        sys.exit(1)


def attach(datasets: click.Group, models: click.Group, jobs: click.Group) -> None:
    """Puts the commands that belong to other groups there."""
    for command in (revoke, unrevoke, revocations, verify_dataset, repair_dataset):
        datasets.add_command(command)
    models.add_command(verify_model)
    models.add_command(repair_model)
    models.add_command(signing_key)
    jobs.add_command(verify_record)


def _about_a_model(client: "Client", name: str) -> click.UsageError | None:
    """Returns what to say when a name that is no data set is that of a model; None when it is none either."""
    try:
        version = client.models.version(name.removeprefix("models/"))
    except TuneforgeError:
        return None
    command = f"tuneforge lineage affected models/{short(version.name)}"
    return click.UsageError(f"{name} is no data set but of a model; for what was made from it: {command}")


def _around(client: "Client", name: str, direction: str, limit: int) -> "LineageGraph":
    from tuneforge.lineage import LineageGraph

    ways = ("ancestors", "descendants") if direction == "both" else (direction,)
    graphs = [client.lineage.graph(name, direction=cast("Direction", way), limit=limit) for way in ways]
    nodes = {node.name: node for graph in graphs for node in graph.nodes}
    edges = dict.fromkeys(edge for graph in graphs for edge in graph.edges)
    return LineageGraph(nodes=tuple(nodes.values()), edges=tuple(edges), is_cut=any(graph.is_cut for graph in graphs))


def _repair(client: "Client", version: "ModelVersion | DatasetVersion", folder: Path, *, as_json: bool) -> None:
    from tuneforge.repair import repair

    repaired = repair(client, version, folder)
    if as_json:
        print_json({"version": version.name, "repaired": list(repaired)})
    elif repaired:
        click.echo(f"{short(version.name)}: put back {', '.join(repaired)}")
    else:
        click.echo(f"{short(version.name)}: nothing of it is damaged")


def _verify(client: "Client", name: str, size_bytes: int, *, as_json: bool) -> None:
    with transfer("verifying", total=size_bytes) as advance:
        done = 0

        def moved(verified: int, _total: int) -> None:
            nonlocal done
            if advance is not None:
                advance(verified - done)
                done = verified

        problems = client.signing.verify(name, progress=moved)
    if as_json:
        print_json({"version": name, "problems": problems})
    for problem in () if as_json else problems:
        click.echo(printable(f"{problem.reason}: {problem.message}"), err=True)
    if any(each.reason == Reason.INTEGRITY for each in problems) and not as_json:
        group = "models" if "/models/" in name else "datasets"
        click.echo(f"Put it back from its files: tuneforge {group} repair {short(name)} FOLDER", err=True)
    if problems:
        sys.exit(1)
    if not as_json:
        click.echo(f"{short(name)} is what was signed, every byte of it")


def _print_aliases(aliases: "list[AffectedAlias]", *, as_json: bool) -> None:
    print_rows(
        aliases,
        [
            ("alias", lambda row: short(row.name)),
            ("names", lambda row: short(row.version)),
            ("could move to", lambda row: short(row.suggestion) if row.suggestion else "nothing: train anew"),
        ],
        as_json=as_json,
        nothing="no alias names anything that was made from it",
    )


def _short(name: str) -> str:
    return printable(name if "://" in name or not name.startswith("projects/") else short(name))


def _say_cut(graph: "LineageGraph", limit: int) -> None:
    if graph.is_cut:
        click.echo(f"only the nearest {limit} things are shown; raise --limit to see more", err=True)
