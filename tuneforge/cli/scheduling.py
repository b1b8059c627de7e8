"""Flags of `tuneforge jobs submit` that say when and where a job may run, and before whom."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from tuneforge.cli.moments import MOMENT

if TYPE_CHECKING:
    from tuneforge.specs.scheduling import Scheduling

CLASSES = ("low", "normal", "high")
_OPTIONS = (
    click.option(
        "--priority",
        type=click.Choice(CLASSES, case_sensitive=False),
        help="Class: a higher one always goes first.  [default: normal]",
    ),
    click.option("--no-preempt", is_flag=True, help="It is never stopped for another job once it runs."),
    click.option("--start-after", type=MOMENT, metavar="WHEN", help="Not before: 2026-12-24T18:00, or +2h from now."),
    click.option(
        "--deadline", type=MOMENT, metavar="WHEN", help="When it should have ended; as it comes near, sooner."
    ),
    click.option("--after", multiple=True, metavar="JOB", help="Once this job has succeeded; may be repeated."),
    click.option("--exclude-node", multiple=True, metavar="NODE", help="Not on this node; may be repeated."),
    click.option(
        "--exclude-label", multiple=True, metavar="KEY[=VALUE]", help="On no node with this label; may be repeated."
    ),
    click.option(
        "--device-kind", multiple=True, metavar="KIND", help="Only on such devices, e.g. h200; may be repeated."
    ),
)


def scheduling_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the flags."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def scheduling_of(flags: dict[str, Any]) -> "Scheduling | None":
    """Returns what the flags say; None: nothing."""
    from tuneforge.specs.scheduling import PriorityClass, Scheduling

    value = Scheduling(
        priority=PriorityClass((flags["priority"] or "normal").lower()),
        is_preemptible=not flags["no_preempt"],
        start_after=flags["start_after"],
        deadline=flags["deadline"],
        depends_on=flags["after"],
        exclude_nodes=flags["exclude_node"],
        exclude_labels={key: word for key, _, word in (each.partition("=") for each in flags["exclude_label"])},
        device_kinds=flags["device_kind"],
    )
    return value if value != Scheduling() else None
