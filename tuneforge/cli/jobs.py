"""`tuneforge jobs`."""

from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from tuneforge.cli.budgets import shown_spending
from tuneforge.cli.connection import CommandGroup, Connection, json_option
from tuneforge.cli.estimates import calibration, estimate
from tuneforge.cli.export import export_command
from tuneforge.cli.foresight import explain, forecasts, simulate
from tuneforge.cli.job_selection import STATES, filter_from, labels_of, selecting
from tuneforge.cli.job_verbs import cancel, delete, pause, rerun, resume
from tuneforge.cli.ledger import ledger, scheduling_fields
from tuneforge.cli.output import print_fields, print_json, print_rows, short, size
from tuneforge.cli.submit import submit

if TYPE_CHECKING:
    from tuneforge.job_values import Job


def _result(job: "Job") -> str:
    if job.verification is not None:
        return f"verifies {_verified(job)}"
    return short(job.version.version) if job.version else "-"


def _waits_in_vain(job: "Job") -> list[str]:
    return ["NO_START_IN_SIGHT"] if job.has_no_start_in_sight else []


def _verified(job: "Job") -> str:
    """Returns which checkpoint a verification is of, and its verdict once there is one."""
    verification = job.verification
    if verification is None:
        return ""
    _, _, _, verified, _, step = verification.checkpoint.split("/")
    certificate = verification.certificate
    verdict = "" if certificate is None else ": passed" if certificate.passed else ": FAILED"
    return f"{verified}/{step}{verdict}"


def _faults(job: "Job") -> str | None:
    """Returns a job's faults and what is left, once it has had one or says more of them than is usual."""
    count = job.faults
    if count is None or not (count.infrastructure_faults or count.user_faults or count.policy.user):
        return None
    infra, own = count.infrastructure_faults, count.user_faults
    left = f"{count.infrastructure_left} and {count.user_left} left"
    return f"{infra} of the infrastructure, {own} of its own; {left}"


@click.group(cls=CommandGroup)
def jobs() -> None:
    """Fine-tuning runs."""


jobs.add_command(submit)
jobs.add_command(export_command)
jobs.add_command(estimate)
jobs.add_command(calibration)
jobs.add_command(ledger)
jobs.add_command(explain)
jobs.add_command(simulate)
jobs.add_command(forecasts)
for verb in (cancel, pause, resume, delete, rerun):
    jobs.add_command(verb)


@jobs.command()
@click.argument("job", required=False)
@click.option("--all", "of_all", is_flag=True, help="Every job: a line for each change, until Ctrl-C.")
@click.option("--state", multiple=True, type=click.Choice(STATES, case_sensitive=False), help="With --all.")
@click.option("--label", multiple=True, metavar="KEY=VALUE", help="With --all: only jobs with it. May be repeated.")
@click.option("--all-projects", is_flag=True, help="With --all: of every project that you may use.")
@json_option
@click.pass_obj
def watch(connection: Connection, /, job: str | None, of_all: bool, as_json: bool, **filters: Any) -> None:
    """Show a job from its first event to its end, or with --all every job's changes.

    Exit code 1 when the job did not succeed.
    """
    from tuneforge.cli.watch import watch_job
    from tuneforge.cli.watch_all import watch_all
    from tuneforge.job_filters import JobFilter
    from tuneforge.job_values import JobState

    if of_all == (job is not None) or (not of_all and any(filters.values())):
        raise click.UsageError("name a JOB, or give --all, with which --state, --label and --all-projects go")
    with connection.client() as client:
        if job is not None:
            watch_job(client.jobs, job, as_json=as_json)
            return
        states = tuple(JobState(each) for each in filters["state"])
        where = JobFilter(states=states, labels=labels_of(filters["label"]))
        watch_all(client.jobs, where, all_projects=filters["all_projects"], as_json=as_json)


@jobs.command("list")
@selecting
@click.option("--order", type=click.Choice(["newest", "oldest", "ended-last"]), default="newest", show_default=True)
@click.option("--limit", type=click.IntRange(1, 2**31 - 1), help="At most so many.  [default: all]")
@json_option
@click.pass_obj
def list_jobs(connection: Connection, /, order: str, limit: int | None, as_json: bool, **flags: Any) -> None:
    """List the project's jobs, newest first; the options leave out what does not apply."""
    from tuneforge.job_filters import JobOrder

    chosen, where = JobOrder(order.upper().replace("-", "_")), filter_from(flags)
    nothing = "no jobs; make one: tuneforge jobs submit --base MODEL --data DATASET"
    with connection.client() as client:
        print_rows(
            islice(client.jobs.list(where, order=chosen), limit),
            [
                ("job", lambda row: row.id),
                ("state", lambda row: " ".join([row.state, *row.conditions, *_waits_in_vain(row)])),
                ("step", lambda row: f"{row.step}/{row.total_steps}" if row.total_steps else "-"),
                ("base", lambda row: short(row.base.version) if row.base else "-"),
                ("data", lambda row: short(row.train.version) if row.train else "-"),
                ("result", _result),
                ("created", lambda row: row.create_time),
            ],
            as_json=as_json,
            nothing=nothing if where is None else "no job of the project is one that the options mean",
        )


@jobs.command()
@click.argument("job")
@json_option
@click.pass_obj
def show(connection: Connection, job: str, as_json: bool) -> None:
    """Show a job. `--json` has its whole spec, in the form that `submit --spec` reads."""
    with connection.client() as client:
        found = client.jobs.read(job)
    if as_json:
        print_json(found)
        return
    change, failure, memory = found.last_change, found.failure, found.memory_estimate
    print_fields(
        [
            ("name", found.name),
            ("state", found.state),
            ("conditions", ", ".join([*found.conditions, *_waits_in_vain(found)])),
            ("because", f"{change.reason}: {change.message}" if change else None),
            ("failure", f"{failure.reason}: {failure.message}" if failure else None),
            ("cure", failure.cure if failure else None),
            ("attempts", found.attempt),
            ("step", f"{found.step}/{found.total_steps}" if found.total_steps else None),
            ("base", f"{found.base.version} {found.base.digest[:12]}" if found.base else None),
            ("data", f"{found.train.version} {found.train.digest[:12]}" if found.train else None),
            ("validation", found.validation.version if found.validation else None),
            ("begins from", short(found.from_checkpoint) if found.from_checkpoint else None),
            ("verifies", _verified(found) if found.verification else None),
            ("result", f"{found.version.version} {found.version.digest[:12]}" if found.version else None),
            ("peak memory", f"about {size(memory.total_bytes)}" if memory else None),
            ("faults", _faults(found)),
            ("runs again", short(found.rerun_of) if found.rerun_of else None),
            ("result of", short(found.reused_from) if found.reused_from else None),
            ("trains", found.training_digest[:16] or None),
            ("removed on", found.expire_time),
            ("spent", shown_spending(found.spent, found.budget) if found.spent else None),
            ("warning", " ".join(found.warnings)),
            *scheduling_fields(found),
            ("labels", found.labels),
            ("created", found.create_time),
            ("started", found.start_time),
            ("ended", found.end_time),
            ("creator", found.creator),
        ]
    )


@jobs.command()
@click.argument("job")
@json_option
@click.pass_obj
def attempts(connection: Connection, job: str, as_json: bool) -> None:
    """List the attempts of a job, newest first."""
    with connection.client() as client:
        print_rows(
            client.jobs.attempts(job),
            [
                ("attempt", lambda row: row.name.rpartition("/")[2]),
                ("state", lambda row: row.state),
                ("node", lambda row: ", ".join(short(part.node) for part in row.parts or (row,))),
                ("steps", lambda row: f"{row.resumed_step} to {row.step}"),
                ("began", lambda row: row.create_time),
                ("ended", lambda row: row.end_time),
                ("budget", lambda row: row.fault_budget.lower().replace("unspecified", "-").replace("_", " ")),
                ("failure", lambda row: row.failure.message if row.failure else "-"),
            ],
            as_json=as_json,
            nothing="no attempts yet: the job waits; see why: tuneforge jobs show " + job,
        )


@jobs.command()
@click.argument("job")
@json_option
@click.pass_obj
def checkpoints(connection: Connection, job: str, as_json: bool) -> None:
    """List the checkpoints of a job, newest first."""
    with connection.client() as client:
        print_rows(
            client.jobs.checkpoints(job),
            [
                ("step", lambda row: row.step),
                ("attempt", lambda row: row.attempt),
                ("node", lambda row: short(row.node)),
                ("size", lambda row: size(row.size_bytes)),
                ("digest", lambda row: row.digest[:12]),
                ("saved", lambda row: row.create_time),
            ],
            as_json=as_json,
            nothing="no checkpoints yet; `checkpointing.every_steps` says how often they are saved",
        )
