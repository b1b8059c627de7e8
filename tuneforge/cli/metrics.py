"""`tuneforge metrics serve`: the figures of one job on a port of this machine."""

import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuneforge.cli.connection import CommandGroup, Connection
from tuneforge.cli.stopping import stoppable

if TYPE_CHECKING:
    from tuneforge.metrics.job import JobFigures


@click.group(cls=CommandGroup)
def metrics() -> None:
    """Figures of jobs for Prometheus."""


@metrics.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free one.")
@click.option("--job-name", metavar="NAME", help="The job to follow; with --training-info only what it is called.")
@click.option("--model-id", metavar="ID", help="What the base is called.  [default: as the job, or the info, says]")
@click.option("--method", metavar="WORD", help="lora, qlora or full.  [default: as the job, or the info, says]")
@click.option("--training-info", type=click.Path(path_type=Path), metavar="FILE", help="Show this finished run.")
@click.pass_obj
def serve(
    connection: Connection,
    port: int,
    job_name: str | None,
    model_id: str | None,
    method: str | None,
    training_info: Path | None,
) -> None:
    """Answer GET /metrics on 127.0.0.1 until Ctrl-C: of a job that runs or ran, or of a training_info.json.

    A port in use is an error: nobody would look at another one. A file that is not there yet is a run that is pending.
    """
    from tuneforge.metrics.exposition import page
    from tuneforge.metrics.job import families
    from tuneforge.metrics.server import MetricsServer, PortInUse

    if training_info is None and job_name is None:
        raise click.UsageError("give --job-name, to follow a job, or --training-info, to show a run that has ended.")
    given = {"model_id": model_id, "method": method}
    if training_info is not None:
        path, name = training_info, job_name
        show: Callable[[], list[JobFigures]] = lambda: [_of_file(path, name, given)]  # noqa: E731
    else:
        figures: list[JobFigures] = []
        show = lambda: figures  # noqa: E731
    try:
        server = MetricsServer(port, lambda: page(families(show())))
    except PortInUse as error:
        raise click.UsageError(f"--port: {error}.") from None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with stoppable("stopped; nothing is shown any more"), server:
        if training_info is None:
            _follow(connection, job_name or "", given, figures)
        click.echo(f"metrics are at {server.address}; Ctrl-C ends it")
        threading.Event().wait()


def _follow(connection: Connection, job_name: str, given: dict[str, str | None], shown: "list[JobFigures]") -> None:
    """Begins to follow a job beside this thread."""
    from tuneforge.cli.output import short
    from tuneforge.metrics.job import JobFigures, JobLabels
    from tuneforge.specs.profile_documents import method_word, model_id_of

    client = connection.client()
    job = client.jobs.read(job_name)
    base = job.base.version if job.base else ""
    figures = JobFigures(
        JobLabels(
            job_name=short(job.name),
            model_id=given["model_id"] or model_id_of(base, job.spec.base.local_path or ""),
            method=given["method"] or method_word(job.spec),
        )
    )
    shown.append(figures)

    def take() -> None:
        with client, client.jobs.watch(job.name) as events:
            for event in events:
                figures.take(event)

    threading.Thread(target=take, name="follow", daemon=True).start()


def _of_file(path: Path, job_name: str | None, given: dict[str, str | None]) -> "JobFigures":
    """Returns the figures of a run's training info, read anew: it may come while this waits."""
    from tuneforge.metrics.job import JobFigures, JobLabels
    from tuneforge.one_shot.validation import MissingInfo, read_info

    try:
        info = read_info(path)
    except MissingInfo:
        info = {}
    name = job_name or Path(str(info.get("output_dir", ""))).name or path.absolute().parent.name
    named = {key: given[key] or str(info.get(key, "")) for key in ("model_id", "method")}
    figures = JobFigures(JobLabels(job_name=name, model_id=named["model_id"], method=named["method"]))
    if info:
        figures.take_info(info, datetime.fromtimestamp(path.stat().st_mtime, UTC))
    return figures
