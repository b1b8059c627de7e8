"""`tuneforge queues`."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from tuneforge.cli.budgets import budget_of, budget_options, hours, shown_spending
from tuneforge.cli.connection import CommandGroup, Connection, json_option
from tuneforge.cli.output import print_fields, print_json, print_rows
from tuneforge.cli.queue_watch import watch_queue

if TYPE_CHECKING:
    from tuneforge.queue_values import Queue, Quota

_CHANGES = (
    "weight",
    "is_paused",
    "max_devices",
    "max_jobs",
    "max_waiting_jobs",
    "device_hours",
    "window_hours",
    "guaranteed_devices",
)


@click.group(cls=CommandGroup)
def queues() -> None:
    """Shares, quotas and budgets of projects."""


queues.add_command(watch_queue)


@queues.command("list")
@json_option
@click.pass_obj
def list_queues(connection: Connection, as_json: bool) -> None:
    """List the queues of all projects beside each other."""
    with connection.client() as client:
        print_rows(
            client.queues.list(),
            [
                ("project", lambda row: row.project),
                ("weight", lambda row: f"{row.weight:g}"),
                ("target", lambda row: f"{row.status.target_share:.1%}"),
                ("share", lambda row: f"{row.status.share:.1%}"),
                ("devices", lambda row: _of(row.status.devices_held, row.quota.max_devices)),
                ("running", lambda row: _of(row.status.running_jobs, row.quota.max_jobs)),
                ("waiting", lambda row: _of(row.status.waiting_jobs, row.quota.max_waiting_jobs)),
                ("spent", lambda row: _spent(row)[-1][1]),
                ("hold", lambda row: row.status.hold or "-"),
            ],
            as_json=as_json,
            nothing="no project has had a job yet; see the queue of this one: tuneforge queues show",
        )


@queues.command("show")
@click.argument("project", required=False)
@json_option
@click.pass_obj
def show(connection: Connection, project: str | None, as_json: bool) -> None:
    """Show the queue of PROJECT, else of the current one."""
    with connection.client() as client:
        _print(client.queues.get(project), as_json=as_json)


@queues.command("set")
@click.argument("project", required=False)
@click.option("--weight", type=float, help="Share of the devices beside the other projects.  [default: 1]")
@click.option("--pause/--unpause", "is_paused", default=None, help="Start nothing new; what runs goes on.")
@click.option("--max-devices", type=click.IntRange(min=0), help="Devices at once.")
@click.option("--max-jobs", type=click.IntRange(min=0), help="Jobs that hold devices at once.")
@click.option("--max-waiting-jobs", type=click.IntRange(min=0), help="Jobs that may wait; one more is refused.")
@click.option("--device-hours", type=click.FloatRange(min=0), help="Device-hours in the last --window-hours.")
@click.option("--window-hours", type=click.IntRange(min=0), help="Length of that window, 1 to 744.")
@click.option("--guaranteed-devices", type=click.IntRange(min=0), help="Devices that others do not take away.")
@budget_options
@click.option(
    "--budget-period",
    type=click.Choice(["day", "week", "month"]),
    help="The budget may be spent in each one anew, by the calendar in UTC.  [default: once]",
)
@click.option("--no-budget", is_flag=True, help="Take the budget away.")
@click.option("--etag", default="", help="Only if the queue has this etag still.")
@json_option
@click.pass_obj
def set_queue(
    connection: Connection, /, project: str | None, no_budget: bool, etag: str, as_json: bool, **flags: Any
) -> None:
    """Change the queue of PROJECT, else of the current one. 0 takes a limit of the quota away.

    A budget that is given takes the place of the whole one before.
    """
    from tuneforge.queue_values import Budget, BudgetPeriod
    from tuneforge.queues import QueueChange

    budget = budget_of(flags)
    if flags["budget_period"] is not None:
        if budget is None:
            raise click.UsageError("--budget-period needs the budget itself, such as --budget-device-hours 100.")
        budget = replace(budget, period=BudgetPeriod(flags["budget_period"].upper()))
    if no_budget and budget is not None:
        raise click.UsageError("--no-budget contradicts the flags of a budget.")
    change = QueueChange(budget=Budget() if no_budget else budget, **{name: flags[name] for name in _CHANGES})
    if change == QueueChange():
        raise click.UsageError("nothing to change: give at least one flag, such as --weight 2.")
    with connection.client() as client:
        _print(client.queues.update(change, project=project, etag=etag), as_json=as_json)


def _print(queue: "Queue", *, as_json: bool) -> None:
    if as_json:
        print_json(queue)
        return
    status = queue.status
    print_fields(
        [
            ("queue", queue.name),
            ("weight", f"{queue.weight:g}"),
            ("share", f"{status.share:.1%} of the usage, {status.target_share:.1%} by weight"),
            ("usage", f"{hours(status.usage_device_seconds)}, half forgotten each day"),
            ("devices", _of(status.devices_held, queue.quota.max_devices)),
            ("guaranteed", queue.quota.guaranteed_devices or None),
            ("running jobs", _of(status.running_jobs, queue.quota.max_jobs)),
            ("waiting jobs", _of(status.waiting_jobs, queue.quota.max_waiting_jobs)),
            ("paused jobs", str(status.paused_jobs)),
            ("device-hours", _window(queue.quota, status.window_device_hours)),
            *_spent(queue),
            ("paused", "yes" if queue.is_paused else None),
            ("hold", status.hold or None),
            ("etag", queue.etag),
            ("changed", queue.update_time),
        ]
    )


def _spent(queue: "Queue") -> list[tuple[str, str]]:
    """Returns what was spent in all, and in the period of the budget where it has one."""
    status, budget = queue.status, queue.budget
    if budget is None or budget.period is None or status.period_spent is None:
        return [("spent", shown_spending(status.spent, budget))]
    period = budget.period.lower()
    until = "" if status.period_end is None else f", until {status.period_end:%Y-%m-%d %H:%M} UTC"
    shown = f"{shown_spending(status.period_spent, budget)} in this {period}{until}"
    return [("spent", shown_spending(status.spent, None)), (f"this {period}", shown)]


def _window(quota: "Quota", used: float) -> str | None:
    if not quota.window_hours:
        return None
    return f"{used:.4g} of {quota.device_hours:.4g} in the last {quota.window_hours} hours"


def _of(count: int, limit: int) -> str:
    return f"{count} of {limit}" if limit else str(count)
