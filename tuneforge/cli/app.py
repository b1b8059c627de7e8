"""The command tree."""

import copy

import click

from tuneforge.cli.aliases import aliases
from tuneforge.cli.checkpoints import checkpoints
from tuneforge.cli.connection import CommandGroup, connection_options
from tuneforge.cli.datasets import datasets
from tuneforge.cli.deployments import deployments
from tuneforge.cli.gates import evaluations, gates
from tuneforge.cli.generate import generate
from tuneforge.cli.imports import import_dataset
from tuneforge.cli.jobs import jobs
from tuneforge.cli.lineage import attach, lineage
from tuneforge.cli.lint import lint, preview
from tuneforge.cli.metrics import metrics
from tuneforge.cli.models import models
from tuneforge.cli.nodes import nodes
from tuneforge.cli.promotions import promotions
from tuneforge.cli.queues import queues
from tuneforge.cli.recipes import recipes
from tuneforge.cli.storage import attach_retention, gc, retention
from tuneforge.cli.sweeps import sweeps
from tuneforge.cli.top import top
from tuneforge.cli.train import train
from tuneforge.cli.validate import validate


def _show_version(context: click.Context, _parameter: click.Parameter, is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        click.echo(f"tuneforge {version('tuneforge')}")
        context.exit()


@click.group(
    cls=CommandGroup,
    params=connection_options(is_hidden=False),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, callback=_show_version, expose_value=False, is_eager=True, help="Show the version."
)
def cli() -> None:
    """Fine-tune models, watch them learn, serve them.

    Resources have short names: `my-job`, data set `rows/3` (version 3), model `router@production` (an alias).
    """


datasets.add_command(import_dataset)
datasets.add_command(lint)
datasets.add_command(preview)
for command in (
    datasets,
    models,
    aliases,
    gates,
    evaluations,
    promotions,
    jobs,
    checkpoints,
    deployments,
    generate,
    nodes,
    queues,
):
    cli.add_command(command)
_job = copy.copy(jobs)  # people who speak of one job type one; it shares the commands of `jobs`
_job.hidden = True
cli.add_command(_job, "job")
cli.add_command(sweeps)
cli.add_command(train)
cli.add_command(top)
cli.add_command(validate)
cli.add_command(metrics)
cli.add_command(lineage)
cli.add_command(recipes)
cli.add_command(gc)
cli.add_command(retention)
attach(datasets, models, jobs)
for group in (datasets, models):
    attach_retention(group)
