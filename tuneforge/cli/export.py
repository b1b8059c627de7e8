"""`tuneforge jobs export`: a job's figures in TensorBoard, in MLflow, or as a page of plots."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuneforge.cli.connection import ConnectedCommand, Connection, json_option
from tuneforge.cli.output import print_json
from tuneforge.cli.stopping import stoppable

if TYPE_CHECKING:
    from tuneforge.exports.mlflow import MlflowExport
    from tuneforge.exports.page import PageExport
    from tuneforge.exports.tensorboard import TensorBoardExport


@click.command("export", cls=ConnectedCommand)
@click.argument("job")
@click.option("--to", "target", required=True, type=click.Choice(["tensorboard", "mlflow", "html"]), help="Which tool.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="PLACE",
    help="tensorboard: folder of all runs; html: the file.",
)
@click.option("--tracking-uri", metavar="URI", help="mlflow: a server, or sqlite:///FILE.")
@click.option("--experiment", default="tuneforge", show_default=True, metavar="NAME", help="mlflow: made when missing.")
@click.option("--follow", is_flag=True, help="Stay until the job has ended.")
@json_option
@click.pass_obj
def export_command(
    connection: Connection,
    job: str,
    target: str,
    out: Path | None,
    tracking_uri: str | None,
    experiment: str,
    follow: bool,
    as_json: bool,
) -> None:
    """Put a job's figures into another tool: one point a step, that of the newest attempt. Repeating it adds nothing.

    html writes one file with plots that needs nothing else to be read. The others need the package
    `tuneforge[tensorboard]` or `tuneforge[mlflow]`.
    """
    with (
        stoppable("stopped; what was exported stays, run the command again to go on"),
        _target(target, out, tracking_uri, experiment) as export,
        connection.client() as client,
    ):
        place = client.jobs.get(job).export(export, follow=follow)
    if as_json:
        print_json({"job": job, "to": target, "place": place})
    else:
        click.echo(f"{job}: exported to {target}, {place}")


def _target(
    target: str, out: Path | None, tracking_uri: str | None, experiment: str
) -> "TensorBoardExport | MlflowExport | PageExport":
    if target == "html":
        from tuneforge.exports.page import PageExport

        if out is None:
            raise click.UsageError("--to html needs --out FILE.")
        return PageExport(out)
    try:
        if target == "tensorboard":
            from tuneforge.exports.tensorboard import TensorBoardExport

            if out is None:
                raise click.UsageError("--to tensorboard needs --out FOLDER.")
            return TensorBoardExport(out)
        from tuneforge.exports.mlflow import MlflowExport

        if tracking_uri is None:
            raise click.UsageError("--to mlflow needs --tracking-uri URI.")
        return MlflowExport(tracking_uri, experiment)
    except ImportError as error:
        message = f"{error.name} is not installed; install it: pip install 'tuneforge[{target}]'"
        raise click.ClickException(message) from None
