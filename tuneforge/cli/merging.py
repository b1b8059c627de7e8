"""`tuneforge models merge`: a whole model of an adapter that is there already."""

from typing import TYPE_CHECKING, Any

import click

from tuneforge.cli.connection import ConnectedCommand, Connection, json_option
from tuneforge.cli.output import print_json
from tuneforge.cli.stopping import stoppable

if TYPE_CHECKING:
    from tuneforge.models import ModelVersion
    from tuneforge.specs.spec import Task


@click.command("merge", cls=ConnectedCommand)
@click.argument("version", metavar="MODEL[/VERSION|@ALIAS]")
@click.option("--data", metavar="DATASET", help="Rows to compare on.  [default: those that the adapter was made with]")
@click.option("--format", "weights", metavar="FORMAT", help="stored, fp32, bf16 or fp16.  [default: stored]")
@click.option("--min-agreement", type=float, help="Least share of equal likeliest tokens.  [default: 0.995]")
@click.option("--output", metavar="MODEL", help="Model that gets the version.  [default: MODEL-merged]")
@click.option("--job-id", metavar="ID", help="Id of the job.  [default: chosen by the server]")
@click.option("--watch", is_flag=True, help="Watch it to its end.")
@json_option
@click.pass_obj
def merge(connection: Connection, /, version: str, as_json: bool, **asked: Any) -> None:
    """Merge an adapter with all below it into a whole model, by a job of its own.

    Both are run over the same rows; a model that differs too much from its adapter is not published.
    """
    with connection.client() as client:
        content = _spec(client.models.version(version), asked)
        with stoppable("stopped; the job may have been queued: tuneforge jobs list"):
            handle = client.jobs.create(content, job_id=asked["job_id"])
        if asked["watch"]:
            from tuneforge.cli.watch import watch_job

            watch_job(client.jobs, handle.name, as_json=as_json)
        elif as_json:
            print_json(handle.job)
        else:
            click.echo(f"{handle.id}: {handle.state}; watch it: tuneforge jobs watch {handle.id}")


def _spec(version: "ModelVersion", asked: dict[str, Any]) -> dict[str, Any]:
    """Returns the job's spec: the rows are those that the adapter was validated on, else those that it learned from."""
    if version.kind != "ADAPTER":
        raise click.UsageError(f"{version.name} is a whole model: there is nothing to merge.")
    lineage = version.lineage
    known = lineage.validation or lineage.dataset
    rows = asked["data"] or (known.version if known else None)
    if rows is None:
        raise click.UsageError("It is not known what the adapter learned from: name rows with --data.")
    spec = lineage.spec
    merged = {"format": asked["weights"], "min_agreement": asked["min_agreement"]}
    content: dict[str, Any] = {
        "base": {"model": version.name},
        "merge": {},
        _task(None if asked["data"] or spec is None else spec.task): {},
        "data": {"train": {"dataset": rows}},
        "output": {
            "model": asked["output"] or version.name.split("/versions/")[0] + "-merged",
            "merge": {name: value for name, value in merged.items() if value is not None},
        },
    }
    if lineage.validation and not asked["data"]:
        # Of a version that is divided, the rows for validation.
        content["data"]["validation"] = {"dataset": rows}
    if spec is not None and spec.data.max_tokens:
        content["data"]["max_tokens"] = spec.data.max_tokens
    return content


def _task(task: "Task | None") -> str:
    """Returns the field of the task that reads the rows which an adapter was made with; None: rows of the caller's."""
    from tuneforge.specs.spec import ContinuedPretrainingTask, PreferenceTask, RewardModelTask

    match task:
        case RewardModelTask():
            raise click.UsageError("It is a reward model: merging is for adapters that write text.")
        case PreferenceTask():
            return "preference"
        case ContinuedPretrainingTask():
            return "continued_pretraining"
        case _:
            return "supervised"
