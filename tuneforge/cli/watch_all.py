"""Watching all jobs from the command line: a line for each change."""

from typing import TYPE_CHECKING

import click

from tuneforge.cli.output import print_json
from tuneforge.cli.stopping import stoppable

if TYPE_CHECKING:
    from tuneforge.errors import TuneforgeError
    from tuneforge.job_changes import JobChange
    from tuneforge.job_filters import JobFilter
    from tuneforge.jobs import Jobs


def watch_all(jobs: "Jobs", where: "JobFilter", *, all_projects: bool, as_json: bool) -> None:
    """Shows every job that is there, then a line for each change, until Ctrl-C."""
    from tuneforge.jobs import WatchOptions

    def broke(error: "TuneforgeError") -> None:
        click.echo(f"the stream broke, opening it again: {error.message}", err=True)

    with (
        stoppable("stopped watching; the jobs go on."),
        jobs.watch_all(where, all_projects=all_projects, options=WatchOptions(on_break=broke)) as changes,
    ):
        for change in changes:
            if as_json:
                print_json(change)
            else:
                click.echo(line_of(change, with_project=all_projects))


def line_of(change: "JobChange", *, with_project: bool) -> str:
    """Returns one line: what happened, the job, its state, how far it is, and why it is in its state."""
    _, project, _, job = change.name.split("/")
    words = [f"{change.kind.lower():8}", f"{project}/{job}" if with_project else job, change.state]
    if change.job is not None:
        if change.job.total_steps:
            words.append(f"step {change.job.step}/{change.job.total_steps}")
        if change.job.last_change is not None:
            words.append(change.job.last_change.message)
    return "  ".join(words)
