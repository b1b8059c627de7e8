"""Flags of `jobs submit` that say nothing of what is trained: retries, time to live, whose result it may have."""

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from tuneforge.cli.job_selection import seconds_of

if TYPE_CHECKING:
    from tuneforge.job_options import JobOptions

JOB_FLAGS = ("retries", "user_retries", "ttl", "reuse")
_REUSE = {"never": "NEVER", "finished": "FINISHED", "running": "FINISHED_OR_RUNNING"}


def job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the flags."""
    options = [
        click.option("--retries", type=click.IntRange(min=0), help="Attempts that may be lost to the infrastructure."),
        click.option("--user-retries", type=click.IntRange(min=0), help="Faults of its own after which it goes on."),
        click.option("--ttl", metavar="SPAN", help="Remove it so long after its end: 12h, 30d.  [default: it stays]"),
        click.option(
            "--reuse",
            type=click.Choice(list(_REUSE)),
            default="never",
            show_default=True,
            help="Take the result of an earlier job that trained the same, or that job while it still runs.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def options_of(flags: dict[str, Any]) -> "JobOptions | None":
    """Returns what the flags say; None: nothing."""
    from tuneforge.job_options import JobOptions, RetryPolicy, Reuse

    budgets = (flags["retries"], flags["user_retries"])
    if budgets == (None, None) and flags["ttl"] is None and flags["reuse"] == "never":
        return None
    retry = None if budgets == (None, None) else RetryPolicy(infrastructure=budgets[0], user=budgets[1])
    ttl = None if flags["ttl"] is None else timedelta(seconds=seconds_of(flags["ttl"], "--ttl"))
    return JobOptions(retry=retry, ttl=ttl, reuse=Reuse(_REUSE[flags["reuse"]]))
