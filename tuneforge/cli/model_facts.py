"""What is said of models: `tuneforge models create|update|card|profile|validation`, and the filters of lists."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tuneforge.cli.connection import Connection, json_option
from tuneforge.cli.output import print_fields, print_json, short, size

if TYPE_CHECKING:
    from tuneforge.model_values import Model, ModelFacts, ModelFilter, ModelVersion

Command = TypeVar("Command", bound=Callable[..., Any])
_PROOF = "resume"
"""Name of the check that a certificate is."""


def filter_options(command: Command) -> Command:
    """Adds the options that say which models or versions a list has."""
    options = [
        click.option("--query", default="", metavar="TEXT", help="Text in id or description."),
        click.option("--task", default="", help="E.g. text-generation."),
        click.option("--framework", default="", help="E.g. transformers."),
        click.option("--architecture", default="", help="E.g. LlamaForCausalLM."),
        click.option("--license", default="", help="E.g. apache-2.0."),
        click.option("--domain", default="", help="Field of use."),
        click.option("--tag", "tags", multiple=True, help="All of these; repeatable."),
        click.option("--metadata", multiple=True, metavar="KEY[=VALUE]", help="All of these; repeatable."),
        click.option("--size", "size_class", type=click.Choice(["small", "base", "large", "xl"]), help="How large."),
        click.option("--kind", type=click.Choice(["model", "adapter"]), help="A whole model or an adapter."),
        click.option("--sort", "order_by", default="", metavar="KEY", help="date, size, name, metric:NAME; ' desc'."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def filter_of(flags: Mapping[str, Any]) -> "ModelFilter":
    """Returns the filter that the flags of `filter_options` give."""
    from tuneforge.model_values import ModelFilter, SizeClass
    from tuneforge.values import ArtifactKind

    texts = {name: flags[name] for name in ("query", "task", "framework", "architecture", "license", "domain")}
    return ModelFilter(
        **texts,
        tags=flags["tags"],
        metadata=pairs(flags["metadata"]),
        size_class=SizeClass(flags["size_class"].upper()) if flags["size_class"] else None,
        kind=ArtifactKind(flags["kind"].upper()) if flags["kind"] else None,
    )


def pairs(texts: tuple[str, ...]) -> dict[str, str]:
    """Returns `KEY=VALUE` texts as a map; a text without `=` has an empty value."""
    return {key: value for key, _, value in (text.partition("=") for text in texts)}


def fact_options(command: Command) -> Command:
    """Adds the options that say something of a model or a version."""
    options = [
        click.option("--description", default=None, help="What it is, for people."),
        click.option("--tag", "tags", multiple=True, help="A tag; repeatable."),
        click.option("--license", default=None, help="E.g. apache-2.0."),
        click.option("--domain", default=None, help="Field of use."),
        click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Also intended_use and notes; repeatable."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("model", metavar="ID")
@fact_options
@json_option
@click.pass_obj
def create(connection: Connection, /, model: str, as_json: bool, **flags: Any) -> None:
    """Make a model without versions: a location, until the first one comes."""
    with connection.client() as client:
        made = client.models.create(model, facts=_facts(flags, (), {}))
    _tell(made, as_json=as_json)


@click.command()
@click.argument("model", metavar="MODEL[/VERSION|@ALIAS]")
@fact_options
@click.option("--untag", multiple=True, help="Take this tag away; repeatable.")
@click.option("--unset", multiple=True, metavar="KEY", help="Take this metadata away; repeatable.")
@json_option
@click.pass_obj
def update(connection: Connection, /, model: str, as_json: bool, **flags: Any) -> None:
    """Change what is said of a model or a version; tags and metadata are added to what is there."""
    with connection.client() as client:
        changed: Model | ModelVersion
        if "@" in model or model.count("/") in {1, 5}:
            version = client.models.version(model)
            wanted = _facts(flags, version.tags, version.metadata)
            changed = client.models.update_version(model, wanted, expected=version)
        else:
            found = client.models.get(model)
            changed = client.models.update(model, _facts(flags, found.tags, found.metadata), expected=found)
    _tell(changed, as_json=as_json)


@click.command()
@click.argument("version", metavar="MODEL[/VERSION|@ALIAS]")
@click.pass_obj
def card(connection: Connection, version: str) -> None:
    """Print the card of a version, in Markdown, written at this moment."""
    with connection.client() as client:
        click.echo(client.models.card(version), nl=False)


@click.command()
@click.argument("version", metavar="MODEL[/VERSION|@ALIAS]")
@click.option("--precision", default="", help="fp32, fp16, bf16, fp8, int8 or int4; default: that of the weights.")
@click.option("--document", is_flag=True, help="Print it as aim_profile.json.")
@click.option("--training-info", is_flag=True, help="Print training_info.json instead, with the run's times.")
@json_option
@click.pass_obj
def profile(connection: Connection, /, version: str, as_json: bool, **flags: Any) -> None:
    """Say what a version needs to be served: by rule of thumb, and by its shapes."""
    with connection.client() as client:
        found = client.models.profile(version, precision=flags["precision"])
    if flags["training_info"]:
        click.echo(found.training_info_json or "{}\n", nl=False)
    elif flags["document"]:
        click.echo(found.profile_json, nl=False)
    elif as_json:
        print_json(found)
    else:
        print_fields(
            [
                ("version", short(found.name)),
                ("base", found.base_model_id),
                ("method", found.fine_tuning_method or None),
                ("precision", found.precision),
                ("parameters", f"{found.parameters} ({found.parameter_count:,})"),
                ("memory by rule", f"{found.memory_gb:g} GB = {found.formula}"),
                ("partition", f"{found.recommended_partition_gb:g} GB"),
                ("serving by shapes", size(found.serving_bytes)),
                ("training by shapes", size(found.training_bytes) if found.training_bytes else None),
            ]
        )


@click.command()
@click.argument("version", metavar="MODEL[/VERSION|@ALIAS]")
@click.option(
    "--record", type=click.Path(path_type=Path), metavar="FILE", help="First keep this report, a file of `validate`."
)
@click.option("--source", default="", metavar="NAME", help="Who made the report that is kept.  [default: the caller]")
@json_option
@click.pass_context
def validation(context: click.Context, version: str, record: Path | None, source: str, as_json: bool) -> None:
    """Print the newest validation report of a version; exit code 1 when a check failed or there is no report.

    --record keeps one that was made elsewhere, as `tuneforge validate --output FILE.json` writes it; gates may ask for
    its checks. Proofs of resumes are reports too and stand apart: see `certificate`.
    """
    connection: Connection = context.obj
    with connection.client() as client:
        if record is not None:
            from tuneforge._check_wire import report_from_json
            from tuneforge.json_files import read_json_file

            checks, not_run = report_from_json(read_json_file(record))
            client.models.add_validation(version, checks, source=source, not_run=not_run)
        reports = client.models.validations(version)
        report = next((each for each in reports if any(check.name != _PROOF for check in each.checks)), None)
    if report is None:
        click.echo(f"{version} has no validation report", err=True)
        context.exit(1)
        return
    if as_json:
        print_json({**json.loads(report.to_json()), "name": report.name, "source": report.source})
    else:
        click.echo(report.text, nl=False)
    context.exit(0 if report.passed else 1)


@click.command()
@click.argument("version", metavar="MODEL[/VERSION|@ALIAS]")
@json_option
@click.pass_context
def certificate(context: click.Context, version: str, as_json: bool) -> None:
    """Print the newest proof that a version's run resumes exactly; exit code 1 when there is none, or it failed.

    `tuneforge checkpoints verify` makes one.
    """
    connection: Connection = context.obj
    with connection.client() as client:
        reports = client.models.validations(version)
        found = next((check for report in reports for check in report.checks if check.name == _PROOF), None)
    if found is None:
        click.echo(f"{version} has no certificate; make one: tuneforge checkpoints verify JOB/STEP", err=True)
        context.exit(1)
        return
    details = sorted(found.details.items(), key=lambda item: _in_order(item[0]))
    if as_json:
        print_json({"passed": found.passed, "message": found.message, **dict(details)})
    else:
        print_fields([("passed", "yes" if found.passed else "NO"), ("found", found.message), *details])
    context.exit(0 if found.passed else 1)


def _in_order(name: str) -> tuple[int, str]:
    """Returns what puts the steps of a proof (`step_9`, `step_10`) in their order, behind the other details."""
    number = name.removeprefix("step_")
    return (int(number) if number.isdigit() else 0, name)


def _facts(flags: Mapping[str, Any], tags: tuple[str, ...], metadata: Mapping[str, str]) -> "ModelFacts":
    """Returns what the flags say, tags and metadata added to what is there."""
    from tuneforge.model_values import ModelFacts

    away, unset = set(flags.get("untag", ())), set(flags.get("unset", ()))
    kept = {key: value for key, value in metadata.items() if key not in unset}
    return ModelFacts(
        description=flags["description"],
        tags=sorted({*tags, *flags["tags"]} - away) if flags["tags"] or away else None,
        license=flags["license"],
        domain=flags["domain"],
        metadata={**kept, **pairs(flags["metadata"])} if flags["metadata"] or unset else None,
    )


def _tell(found: "Model | ModelVersion", *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        print_fields(
            [
                ("name", short(found.name)),
                ("description", found.description),
                ("tags", ", ".join(found.tags) or None),
                ("license", found.license or None),
                ("domain", found.domain or None),
                ("metadata", found.metadata or None),
                ("etag", found.etag),
            ]
        )
