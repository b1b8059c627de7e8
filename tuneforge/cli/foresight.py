"""`tuneforge jobs explain`, `simulate` and `forecasts`: why a job waits, what comes next, what promises were worth."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuneforge.cli.connection import ConnectedCommand, Connection, json_option
from tuneforge.cli.estimates import NOT_FOR_A_SPEC
from tuneforge.cli.output import clock, print_fields, print_json, print_rows, short, shown, size
from tuneforge.cli.scheduling import scheduling_of
from tuneforge.cli.submit import read_flags, submit

if TYPE_CHECKING:
    from tuneforge.explanation_values import (
        Blocker,
        JobExplanation,
        JobForecast,
        NodeFinding,
        RunProgress,
        TimeInterval,
    )
    from tuneforge.foresight import SimulatedJob


@click.command(cls=ConnectedCommand)
@click.argument("job")
@json_option
@click.pass_obj
def explain(connection: Connection, job: str, as_json: bool) -> None:
    """Say why a job is in its state and what comes next: what it waits for, its turn, when it starts and ends."""
    with connection.client() as client:
        found = client.jobs.explain(job)
    if as_json:
        print_json(found)
        return
    print_fields([("job", short(found.name)), ("state", found.state), ("summary", found.summary)])
    _print_blockers(found.blockers)
    print_fields(_turn(found))
    if found.forecast is not None:
        print_fields(forecast_fields(found.forecast))
    if found.progress is not None:
        print_fields(_progress(found.progress))
    for each in found.preemptors:
        due = " (due now)" if each.is_due else ""
        click.echo(f"may be stopped for {short(each.job) if each.job else 'a job of another project'}: {each.why}{due}")
    _print_nodes(found.nodes)


def _turn(found: "JobExplanation") -> list[tuple[str, object]]:
    place = found.position
    if place is None:
        return []
    others = place.position - 1 - len(place.ahead)
    ahead = ", ".join(short(each) for each in place.ahead) + (f" and {others} more" if others > 0 else "")
    return [
        ("place", f"{place.position} of {place.waiting}; in its project {place.position_in_project} of "
         f"{place.waiting_in_project}"),
        ("order", place.words),
        ("ahead", ahead if place.position > 1 else "nobody"),
        ("may overtake", f"{found.num_may_overtake} smaller jobs" if found.num_may_overtake else None),
    ]  # fmt: skip


def forecast_fields(found: "JobForecast") -> list[tuple[str, object]]:
    """Returns a forecast as `key: value` lines."""
    return [
        ("starts", _when(found.start, found.make_time) if found.start else None),
        ("ends", _when(found.end, found.make_time) if found.end else None),
        ("forecast", found.why),
    ]


def _when(found: "TimeInterval", now: datetime) -> str:
    def ahead(moment: datetime) -> str:
        return clock((moment - now).total_seconds())

    wait = f"in {ahead(found.expected)} ({ahead(found.earliest)} to {ahead(found.latest)})"
    return f"{wait}, about {shown(found.expected)}"


def _progress(found: "RunProgress") -> list[tuple[str, object]]:
    steps = None
    if found.steps_measured:
        steps = (
            f"{found.step_seconds:.3g} s ({found.step_seconds_low:.3g} to {found.step_seconds_high:.3g}; the newest "
            f"{found.steps_measured})"
        )
    return [
        ("step", f"{found.step}/{found.total_steps}" if found.total_steps else found.step or None),
        ("a step", steps),
        ("runs on", ", ".join(map(short, found.nodes))),
        ("a stop costs", f"{found.stop_costs_device_seconds:.3g} device-seconds"),
    ]


def _print_blockers(found: "tuple[Blocker, ...]") -> None:
    for each in found:
        click.echo(f"waits for {each.reason}: {shown(each.message)}")
        named = ", ".join(map(short, each.jobs))
        hidden = each.num_jobs - len(each.jobs)
        if each.num_jobs:
            click.echo(f"  jobs: {named}{' and ' if named and hidden else ''}{f'{hidden} more' if hidden else ''}")
        click.echo(f"  cure: {shown(each.cure)}")


def _print_nodes(found: "tuple[NodeFinding, ...]") -> None:
    for each in found:
        lacks = f" (lacks {size(each.missing_bytes)})" if each.missing_bytes else ""
        click.echo(
            f"{each.node}: {shown(each.why_not) or 'has room'}{lacks}; {each.free_slots}/{each.slots} slots free"
        )


def _simulate(spec: Path | None, as_json: bool, **flags: Any) -> None:
    connection: Connection = click.get_current_context().obj
    unset: dict[str, Any] = dict.fromkeys(NOT_FOR_A_SPEC)
    scheduling = scheduling_of(flags)
    with connection.client() as client:
        found = client.jobs.simulate(read_flags(spec, {**unset, **flags}), scheduling=scheduling)
    if as_json:
        print_json(found)
        return
    _print_simulation(found)


def _print_simulation(answer: "SimulatedJob") -> None:
    found = answer.simulation
    place = found.position
    print_fields(
        [
            ("created", "no: this is what would be"),
            ("place", f"{place.position} of {place.waiting}" if place else None),
            ("nodes", ", ".join(map(short, found.nodes)) or None),
            *forecast_fields(found.forecast),
        ]
    )
    _print_blockers(found.blockers)
    for stopped in found.displaced:
        name = short(stopped.job) if stopped.job else "a job of another project"
        click.echo(f"stops {name}, which costs {stopped.costs_device_seconds:.3g} device-seconds")
    if not found.displaced:
        click.echo("stops no running job")
    for late in found.delayed:
        name = short(late.job) if late.job else "a job of another project"
        click.echo(f"delays {name} by {clock(late.delay_seconds)}, to {shown(late.end_after)}")
    if found.num_delayed > len(found.delayed):
        click.echo(f"delays {found.num_delayed - len(found.delayed)} more jobs")
    if not found.num_delayed:
        click.echo("delays no other job")


simulate = ConnectedCommand(
    "simulate",
    callback=_simulate,
    params=[
        *(
            click.Argument(["spec"], required=False, type=click.Path(path_type=Path)) if param.name == "spec" else param
            for param in submit.params
            if param.name not in NOT_FOR_A_SPEC
        ),
    ],
    help="Say when a job would start and end, where, and what it would do to others, and make none.\n\n"
    "SPEC is a file with the spec as JSON; the flags of `submit` go on top of it.",
)


@click.command(cls=ConnectedCommand)
@click.argument("job", required=False)
@click.option("--summary", is_flag=True, help="Only how good the promises of all projects were.")
@json_option
@click.pass_obj
def forecasts(connection: Connection, job: str | None, summary: bool, as_json: bool) -> None:
    """List when jobs were promised to start and end, and what came; or how good such promises were."""
    with connection.client() as client:
        if summary:
            print_rows(
                client.jobs.forecast_calibrations(),
                [
                    ("event", lambda row: row.event),
                    ("decided", lambda row: row.decided),
                    ("kept", lambda row: f"{row.kept_share:.0%}"),
                    ("real / expected", lambda row: f"{row.median_ratio:.2f}"),
                    ("from", lambda row: f"{row.low_ratio:.2f}"),
                    ("to", lambda row: f"{row.high_ratio:.2f}"),
                    ("widens", lambda row: "yes" if row.is_applied else "not yet"),
                ],
                as_json=as_json,
                nothing="no promise was decided yet",
            )
            return
        print_rows(
            client.jobs.forecasts(job),
            [
                ("job", lambda row: short(row.job) if row.job else "(simulated)"),
                ("promised", lambda row: row.event),
                ("to", lambda row: row.source),
                ("at", lambda row: row.make_time),
                ("expected", lambda row: row.told.expected),
                ("earliest", lambda row: row.told.earliest),
                ("latest", lambda row: row.told.latest),
                ("came", lambda row: row.real_time),
                ("outcome", lambda row: row.outcome),
            ],
            as_json=as_json,
            nothing="no promise was made yet",
        )
