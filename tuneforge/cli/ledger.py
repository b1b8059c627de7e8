"""`tuneforge jobs ledger`, and what `jobs show` says of when and where a job runs and of the use of its devices."""

from typing import TYPE_CHECKING

import click

from tuneforge.cli.connection import Connection, json_option
from tuneforge.cli.output import clock, print_fields, print_json, short

if TYPE_CHECKING:
    from tuneforge.job_values import Job, WorkLedger


@click.command()
@json_option
@click.pass_obj
def ledger(connection: Connection, as_json: bool) -> None:
    """Show what the devices of the project's jobs were used for: held, lost and saved."""
    with connection.client() as client:
        found = client.jobs.ledger()
    if as_json:
        print_json(found)
    else:
        print_fields(ledger_fields(found))
        if not any(value for _, value in ledger_fields(found)):
            click.echo("no job of the project has ended an attempt yet")


def ledger_fields(found: "WorkLedger") -> list[tuple[str, object]]:
    """Returns the lines of a ledger; device time is hours, minutes and seconds of one device."""
    return [
        ("device time", clock(found.attained) if found.attained else None),
        (
            "lost to others",
            f"{clock(found.lost_to_preemption)}, gave way {found.preemptions}x" if _gave(found) else None,
        ),
        ("lost to faults", clock(found.lost_to_faults) if found.lost_to_faults else None),
        ("saved", clock(found.saved) if found.saved else None),
    ]


def _gave(found: "WorkLedger") -> bool:
    return bool(found.preemptions or found.lost_to_preemption)


def scheduling_fields(job: "Job") -> list[tuple[str, object]]:
    """Returns the lines on a job's class, window and places; those that were not asked for are left out."""
    wanted = job.scheduling
    labels = [f"{key}={value}" if value else key for key, value in sorted(wanted.exclude_labels.items())]
    return [
        ("class", wanted.priority if wanted.priority != "normal" else None),
        ("gives way", None if wanted.is_preemptible else "never"),
        ("starts after", wanted.start_after),
        ("deadline", wanted.deadline),
        ("after", ", ".join(map(short, wanted.depends_on)) or None),
        ("not on", ", ".join([*map(short, wanted.exclude_nodes), *labels]) or None),
        ("only on", ", ".join(wanted.device_kinds) or None),
        *ledger_fields(job.ledger),
    ]
