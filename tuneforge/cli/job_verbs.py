"""`tuneforge jobs cancel|pause|resume|delete|rerun`: of one job, or of all that the options mean."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from tuneforge.cli.budgets import budget_of, budget_options
from tuneforge.cli.connection import ConnectedCommand, Connection, json_option
from tuneforge.cli.job_selection import filter_from, selecting
from tuneforge.cli.output import print_json, short

if TYPE_CHECKING:
    from tuneforge.job_filters import JobFilter
    from tuneforge.job_lifecycle import ChangedJobs
    from tuneforge.job_values import Job

_SHOWN = 20
"""Jobs named before a question; there may be thousands."""


def _many(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command a job or the options that mean several."""
    for option in (
        json_option,
        click.option("--yes", is_flag=True, help="Ask nothing."),
        click.option("--dry-run", is_flag=True, help="Say which jobs it would be, and change nothing."),
        click.option("--all", "is_all", is_flag=True, help="Every job of the project."),
    ):
        command = option(command)
    return click.pass_obj(click.argument("job", required=False)(selecting(command)))


_REASON = click.option("--reason", default="", help="Why, for the log.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meant:
    """Which jobs are meant, and how it is gone about."""

    where: "JobFilter | None"
    """None: all."""
    is_dry: bool
    asks: bool
    as_json: bool


def _meant(job: str | None, flags: dict[str, Any]) -> _Meant:
    """Returns which jobs are meant.

    Raises:
        UsageError: A job and options, or neither.
    """
    where = filter_from(flags)
    if job is not None and (flags["is_all"] or flags["dry_run"] or where is not None):
        raise click.UsageError("a job was named, and options that mean several: use one of the two")
    if job is None and where is None and not flags["is_all"]:
        raise click.UsageError("no job was named: name one, or say which with options, or --all")
    return _Meant(where=where, is_dry=flags["dry_run"], asks=not flags["yes"], as_json=flags["as_json"])


def _print_one(job: "Job", meant: _Meant) -> None:
    if meant.as_json:
        print_json(job)
    else:
        click.echo(f"{job.id}: {job.state}")


def _change(make: Callable[..., "ChangedJobs"], words: str, meant: _Meant) -> None:
    """Makes a change to many jobs: says which, asks, does it, says what was left as it is; exit code 1 for those."""
    if meant.is_dry or meant.asks:
        dry = make(validate_only=True)
        if meant.is_dry and meant.as_json:
            print_json(dry)
            return
        _print_dry(dry, words, to_stderr=not meant.is_dry)
        if meant.is_dry or not dry.changed:
            return
        click.confirm("go on?", abort=True, err=True)
    changed = make(validate_only=False)
    if meant.as_json:
        print_json(changed)
    else:
        click.echo(f"{changed.changed} of {changed.matched} jobs {words}")
    for problem in changed.problems:
        click.echo(f"{short(problem.name)}: {problem.message}", err=True)
    if changed.problems:
        raise SystemExit(1)


def _print_dry(dry: "ChangedJobs", words: str, *, to_stderr: bool) -> None:
    click.echo(f"{dry.changed} of {dry.matched} jobs would be {words}", err=to_stderr)
    for name in dry.names[:_SHOWN]:
        click.echo(f"  {short(name)}", err=to_stderr)
    if dry.changed > _SHOWN:
        click.echo(f"  and {dry.changed - _SHOWN} more", err=to_stderr)


@click.command(cls=ConnectedCommand)
@_REASON
@_many
def cancel(connection: Connection, /, job: str | None, reason: str, **flags: Any) -> None:
    """Cancel a job, or all that the options mean: at once while it waits, else as soon as its device is free."""
    meant = _meant(job, flags)
    with connection.client() as client:
        if job is not None:
            _print_one(client.jobs.cancel(job, reason=reason), meant)
        else:
            _change(partial(client.jobs.cancel_all, meant.where, reason=reason), "cancelled", meant)


@click.command(cls=ConnectedCommand)
@_REASON
@_many
def pause(connection: Connection, /, job: str | None, reason: str, **flags: Any) -> None:
    """Pause a job, or all that the options mean: it saves its state, leaves its device, and goes on when resumed."""
    meant = _meant(job, flags)
    with connection.client() as client:
        if job is not None:
            _print_one(client.jobs.pause(job, reason=reason), meant)
        else:
            _change(partial(client.jobs.pause_all, meant.where, reason=reason), "paused", meant)


@click.command(cls=ConnectedCommand)
@budget_options
@_many
def resume(connection: Connection, /, job: str | None, **flags: Any) -> None:
    """Queue a paused job again, or all that the options mean.

    With a budget the named job may spend that much in all; 0 takes a limit away.
    """
    meant, budget = _meant(job, flags), budget_of(flags)
    if job is None and budget is not None:
        raise click.UsageError("a budget is of one job: name it")
    with connection.client() as client:
        if job is not None:
            _print_one(client.jobs.resume(job, budget=budget), meant)
        else:
            _change(partial(client.jobs.resume_all, meant.where), "queued again", meant)


@click.command(cls=ConnectedCommand)
@_many
def delete(connection: Connection, /, job: str | None, **flags: Any) -> None:
    """Remove a job that has ended, or all that the options mean, with events and checkpoints. Versions stay."""
    meant = _meant(job, flags)
    with connection.client() as client:
        if job is None:
            _change(partial(client.jobs.delete_all, meant.where), "removed", meant)
            return
        if meant.asks:
            click.confirm(f"remove {job} with its events and checkpoints?", abort=True, err=True)
        found = client.jobs.delete(job)
    if meant.as_json:
        print_json(found)
    else:
        click.echo(f"{found.id}: removed")


@click.command(cls=ConnectedCommand)
@click.argument("job")
@click.option("--id", "job_id", metavar="ID", help="Id of the new job; else the server chooses.")
@click.option("--repin", is_flag=True, help="Take the newest versions of its data sets.")
@json_option
@click.pass_obj
def rerun(connection: Connection, job: str, job_id: str | None, repin: bool, as_json: bool) -> None:
    """Run a job that has ended again, as a new job with the same pinned spec."""
    with connection.client() as client:
        found = client.jobs.rerun(job, job_id=job_id, repin=repin)
    if as_json:
        print_json(found)
    else:
        click.echo(f"{found.id}: {found.state}, runs {short(found.rerun_of)} again")
