"""Options of commands for many jobs: which jobs are meant."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from tuneforge.cli.scheduling import CLASSES

if TYPE_CHECKING:
    from tuneforge.job_filters import JobFilter

STATES = (
    "BLOCKED",
    "QUEUED",
    "STARTING",
    "RUNNING",
    "PAUSING",
    "PAUSED",
    "PREEMPTING",
    "PUBLISHING",
    "CANCELLING",
    "SUCCEEDED",
    "FAILED",
    "CANCELLED",
)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LONGEST_S = 36_525 * 86400.0
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def seconds_of(text: str, option: str | None = None) -> float:
    """Returns a span as a person types it in seconds: `90s`, `15m`, `2h`, `7d`, `1w`.

    Raises:
        BadParameter: It is none.
    """
    found = _SPAN.fullmatch(text.strip().lower())
    if found is None:
        problem = f"{text!r} is no span: use a number and s, m, h, d or w, as in 90s or 7d"
        raise click.BadParameter(problem, param_hint=option)
    seconds = float(found[1]) * _UNITS[found[2]]
    if seconds > _LONGEST_S:
        raise click.BadParameter(f"{text!r} is longer than a century: use a shorter one", param_hint=option)
    return seconds


def moment_of(text: str, option: str | None = None) -> datetime:
    """Returns a moment: so long ago (`2h`), or a date or time in ISO form, in local time unless it says otherwise.

    Raises:
        BadParameter: It is none.
    """
    try:
        if _SPAN.fullmatch(text.strip().lower()):
            return datetime.now(UTC) - timedelta(seconds=seconds_of(text, option))
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        problem = f"{text!r} is no moment: use a span back from now as in 2h or 7d, or a time as in 2026-05-01T08:00"
        raise click.BadParameter(problem, param_hint=option) from None


def labels_of(pairs: tuple[str, ...]) -> dict[str, str]:
    """Returns `key=value` pairs as a mapping; a key alone stands for any value.

    Raises:
        BadParameter: A pair has no key.
    """
    found = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if not key:
            raise click.BadParameter(f"{pair!r} has no key: use KEY=VALUE, or KEY for any value", param_hint="--label")
        found[key] = value
    return found


_TEXTS = {
    "search": "--search",
    "output_model": "--model",
    "base": "--base",
    "dataset": "--data",
    "sweep": "--sweep",
    "since": "--since",
    "before": "--before",
    "ended_since": "--ended-since",
    "ended_before": "--ended-before",
}
_OPTIONS = (
    click.option(
        "--state", multiple=True, type=click.Choice(STATES, case_sensitive=False), help="In it; may be repeated."
    ),
    click.option("--label", multiple=True, metavar="KEY[=VALUE]", help="With it; may be repeated."),
    click.option("--search", metavar="TEXT", help="In the job's id or its creator."),
    click.option("--model", "output_model", metavar="MODEL", help="Publishes into it."),
    click.option("--base", metavar="MODEL[/N]", help="On this base."),
    click.option("--data", "dataset", metavar="DATASET[/N]", help="Learns from these rows."),
    click.option("--sweep", metavar="SWEEP", help="A trial of it."),
    click.option(
        *("--class", "--priority", "priority"),
        multiple=True,
        type=click.Choice(CLASSES, case_sensitive=False),
        help="In this class; may be repeated.",
    ),
    click.option("--since", metavar="WHEN", help="Created at this moment or later: 2h, 7d, 2026-05-01."),
    click.option("--before", metavar="WHEN", help="Created before this moment."),
    click.option("--ended-since", metavar="WHEN", help="Ended at this moment or later."),
    click.option("--ended-before", metavar="WHEN", help="Ended before this moment."),
)


def selecting(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options to a command; `filter_from` reads them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def filter_from(chosen: dict[str, Any]) -> "JobFilter | None":
    """Returns the filter that the options make, or None when none of them was given."""
    from tuneforge.job_filters import JobFilter
    from tuneforge.job_values import JobState
    from tuneforge.specs.scheduling import PriorityClass

    for name, option in _TEXTS.items():
        if chosen[name] == "":  # a variable that is not set, in a script: it must not mean every job
            raise click.BadParameter("is empty: give a value, or leave the option out", param_hint=option)
    names = ("state", "label", "priority", *_TEXTS)
    if not any(chosen[name] for name in names):
        return None

    def moment(name: str) -> datetime | None:
        return moment_of(chosen[name], _TEXTS[name]) if chosen[name] else None

    return JobFilter(
        states=tuple(JobState(each) for each in chosen["state"]),
        labels=labels_of(chosen["label"]),
        search=chosen["search"] or "",
        output_model=chosen["output_model"] or "",
        base=chosen["base"] or "",
        dataset=chosen["dataset"] or "",
        priorities=tuple(PriorityClass(each) for each in chosen["priority"]),
        sweep=chosen["sweep"] or "",
        created_from=moment("since"),
        created_before=moment("before"),
        ended_from=moment("ended_since"),
        ended_before=moment("ended_before"),
    )
