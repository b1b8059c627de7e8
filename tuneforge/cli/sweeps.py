"""`tuneforge sweeps`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuneforge.cli.connection import CommandGroup, Connection, json_option
from tuneforge.cli.output import print_fields, print_json, print_rows, short

if TYPE_CHECKING:
    from tuneforge.sweep_values import Sweep, Trial


@click.group(cls=CommandGroup)
def sweeps() -> None:
    """Searches over fields of a spec; their trials are jobs."""


@sweeps.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--name", default="", help="Id of the sweep.  [default: chosen by the server]")
@click.option("--trials", type=int, default=None, help="Number of trials, in place of the file's.")
@click.option("--parallel", type=int, default=None, help="Trials at the same time, in place of the file's.")
@click.option("--dry-run", is_flag=True, help="Check all and show the cost, but begin nothing.")
@click.option("--watch/--no-watch", default=False, help="Show trials as they end, until the sweep has ended.")
@json_option
@click.pass_obj
def create(
    connection: Connection,
    file: Path,
    name: str,
    trials: int | None,
    parallel: int | None,
    dry_run: bool,
    watch: bool,
    as_json: bool,
) -> None:
    """Begin a sweep from a JSON file: `spec` as for a job, and beside it the plan, e.g. `space` and `num_trials`."""
    spec, plan = _read(file)
    if trials is not None:
        plan["num_trials"] = trials
    if parallel is not None:
        plan["parallel_trials"] = parallel
    with connection.client() as client:
        sweep = client.sweeps.create(spec, plan, sweep_id=name, validate_only=dry_run)
        if as_json:
            print_json(sweep)
        elif dry_run:
            _print_cost(sweep)
        else:
            _print_cost(sweep)
            click.echo(f"{sweep.id} has begun; `tuneforge sweeps trials {sweep.id}` shows its trials")
        if watch and not dry_run:
            _follow(connection, sweep.id, as_json=as_json)


@sweeps.command()
@click.argument("sweep")
@json_option
@click.pass_obj
def show(connection: Connection, sweep: str, as_json: bool) -> None:
    """Show a sweep and its best trial."""
    with connection.client() as client:
        found = client.sweeps.get(sweep)
    if as_json:
        print_json(found)
        return
    _print_sweep(found)


@sweeps.command("list")
@json_option
@click.pass_obj
def list_sweeps(connection: Connection, as_json: bool) -> None:
    """List the project's sweeps, newest first."""
    with connection.client() as client:
        print_rows(
            client.sweeps.list(),
            [
                ("sweep", lambda row: row.id),
                ("state", lambda row: row.state),
                ("trials", lambda row: sum(row.counts.values())),
                ("of", lambda row: row.cost.trials),
                ("metric", lambda row: row.metric),
                ("best", lambda row: None if row.best is None else row.best.value),
                ("best job", lambda row: short(row.best.job) if row.best else "-"),
                ("created", lambda row: row.create_time),
            ],
            as_json=as_json,
            nothing="no sweeps yet; `tuneforge sweeps create` begins one",
        )


@sweeps.command()
@click.argument("sweep")
@json_option
@click.pass_obj
def trials(connection: Connection, sweep: str, as_json: bool) -> None:
    """List the trials of a sweep by number."""
    with connection.client() as client:
        print_rows(
            client.sweeps.trials(sweep),
            [
                ("trial", lambda row: row.number),
                ("round", lambda row: row.round),
                ("state", lambda row: row.state),
                ("value", lambda row: row.value),
                ("step", lambda row: f"{row.step}/{row.total_steps}" if row.total_steps else "-"),
                ("parameters", lambda row: _parameters(row.parameters)),
                ("job", lambda row: short(row.job) if row.job else "-"),
                ("why", lambda row: row.message or "-"),
            ],
            as_json=as_json,
            nothing="no trials yet",
        )


@sweeps.command()
@click.argument("sweep")
@json_option
@click.pass_obj
def watch(connection: Connection, sweep: str, as_json: bool) -> None:
    """Show trials as they begin and end, until the sweep has ended. Exit code 1 when it has failed."""
    _follow(connection, sweep, as_json=as_json)


@sweeps.command()
@click.argument("sweep")
@click.option("--reason", default="", help="Why, for the log.")
@json_option
@click.pass_obj
def cancel(connection: Connection, sweep: str, reason: str, as_json: bool) -> None:
    """Stop a sweep and its open trials."""
    with connection.client() as client:
        _say(client.sweeps.cancel(sweep, reason=reason), as_json=as_json)


@sweeps.command()
@click.argument("sweep")
@click.option("--reason", default="", help="Why, for the log.")
@json_option
@click.pass_obj
def pause(connection: Connection, sweep: str, reason: str, as_json: bool) -> None:
    """Begin no further trials, and pause those that run."""
    with connection.client() as client:
        _say(client.sweeps.pause(sweep, reason=reason), as_json=as_json)


@sweeps.command()
@click.argument("sweep")
@json_option
@click.pass_obj
def resume(connection: Connection, sweep: str, as_json: bool) -> None:
    """Let a paused sweep go on."""
    with connection.client() as client:
        _say(client.sweeps.resume(sweep), as_json=as_json)


@sweeps.command()
@click.argument("sweep")
@json_option
@click.pass_obj
def delete(connection: Connection, sweep: str, as_json: bool) -> None:
    """Delete a sweep that has ended; its jobs and their versions stay."""
    with connection.client() as client:
        found = client.sweeps.delete(sweep)
    if as_json:
        print_json(found)
        return
    click.echo(f"{found.id} is deleted; its jobs and their versions stay")


@sweeps.command()
@click.argument("sweep")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File.  [default: SWEEP.html]")
@click.pass_obj
def report(connection: Connection, sweep: str, out: Path | None) -> None:
    """Write a page with history, importance of parameters and parallel coordinates."""
    with connection.client() as client:
        found = client.sweeps.get(sweep)
        from tuneforge.sweep_report import sweep_report

        page = sweep_report(found, list(client.sweeps.trials(sweep)), client.sweeps.importances(sweep))
    target = out or Path(f"{found.id}.html")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page, encoding="utf-8")
    click.echo(f"{target} has the report of {found.id}")


@sweeps.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
def suggest(file: Path) -> None:
    """Print a space to begin with for a JSON file with a spec, as JSON."""
    from tuneforge.json_files import read_json_file
    from tuneforge.specs.wire import spec_from_proto
    from tuneforge.sweeps import suggested_space
    from tuneforge.v1 import spec_pb2

    content = read_json_file(file)
    given = content.get("spec", content)
    kinds = {name for name in ("lora", "qlora", "full", "preference") if name in given}
    message = spec_pb2.TrainingSpec()
    for kind in sorted(kinds):
        getattr(message, kind).SetInParent()
    if "preference" not in kinds:
        message.supervised.SetInParent()
    click.echo(json.dumps(suggested_space(spec_from_proto(message)), indent=2))


def _read(file: Path) -> tuple[Mapping[str, Any], dict[str, Any]]:
    from tuneforge.json_files import read_json_file

    content = dict(read_json_file(file))
    spec = content.pop("spec", None)
    if not isinstance(spec, dict):
        raise click.ClickException(f"{str(file)!r} has no object `spec`: write what all trials have in common there")
    return spec, content


def _parameters(values: Mapping[str, Any]) -> str:
    from tuneforge.sweep_report import parameters_text

    return parameters_text(values)


def _print_cost(sweep: "Sweep") -> None:
    cost = sweep.cost
    seconds = f"{cost.lowest_device_seconds:.3g} to {cost.highest_device_seconds:.3g} device-seconds"
    space = f"{sweep.combinations} points" if sweep.combinations else "no end of points"
    click.echo(
        f"{cost.trials} trials over {cost.data_shares:g} times the rows, "
        f"{seconds if cost.highest_device_seconds else 'device-seconds not known yet'}; the space has {space}"
    )


def _print_sweep(sweep: "Sweep") -> None:
    best = sweep.best
    print_fields(
        [
            ("name", sweep.name),
            ("state", sweep.state),
            ("why", sweep.message),
            ("cure", sweep.failure.cure if sweep.failure else None),
            ("compared by", sweep.metric),
            ("round", sweep.round if len(sweep.cost.rounds) > 1 else None),
            ("trials", ", ".join(f"{count} {name}" for name, count in sweep.counts.items() if count)),
            ("best trial", best.number if best else None),
            ("value", best.value if best else None),
            ("parameters", _parameters(best.parameters) if best else None),
            ("job", short(best.job) if best else None),
            ("version", short(best.version.version) if best and best.version else None),
            ("device-seconds", round(sweep.device_seconds, 1)),
            ("created", sweep.create_time),
            ("ended", sweep.end_time),
        ]
    )


def _follow(connection: Connection, name: str, *, as_json: bool) -> None:
    shown: dict[str, str] = {}
    last: Sweep | None = None
    with connection.client() as client:
        for seen, changed in client.sweeps.watch(name):
            last = seen
            for trial in changed:
                if as_json:
                    print_json(trial)
                elif shown.get(trial.name) != trial.state:
                    click.echo(_line(trial))
                shown[trial.name] = trial.state
    if last is None:
        return
    if not as_json:
        click.echo(f"{last.id} {last.state}: {last.message}")
    if last.state == "FAILED":
        raise SystemExit(1)


def _line(trial: "Trial") -> str:
    value = "" if trial.value is None else f" {trial.value:.6g}"
    why = f"  {trial.message}" if trial.message else ""
    return f"trial {trial.number} {trial.state}{value}  {_parameters(trial.parameters)}{why}"


def _say(sweep: "Sweep", *, as_json: bool) -> None:
    if as_json:
        print_json(sweep)
        return
    click.echo(f"{sweep.id} is {sweep.state}: {sweep.message}")
