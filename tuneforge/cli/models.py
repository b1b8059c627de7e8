"""`tuneforge models`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from tuneforge.cli.connection import CommandGroup, Connection, json_option
from tuneforge.cli.differences import diff_command
from tuneforge.cli.downloads import download_command
from tuneforge.cli.imports import ModelImport, origin
from tuneforge.cli.merging import merge
from tuneforge.cli.model_facts import card, certificate, create, filter_of, filter_options, profile, update, validation
from tuneforge.cli.output import print_fields, print_json, print_rows, revoked, short, size

if TYPE_CHECKING:
    from tuneforge.client import Client
    from tuneforge.models import Model, ModelVersion


@click.group(cls=CommandGroup)
def models() -> None:
    """Models and their versions; see `aliases` for the names that point to them."""


for command in (
    card,
    certificate,
    create,
    diff_command("models"),
    download_command("models"),
    merge,
    profile,
    update,
    validation,
):
    models.add_command(command)


@models.command("import")
@click.argument("origin", metavar="FOLDER|ADDRESS")
@click.option("--model", required=True, metavar="ID", help="The model; made when missing.")
@click.option("--description", default="", help="Of a model that is made.")
@click.option("--connection", "connection_name", default="", metavar="NAME", help="The operator's, with credentials.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Files to take from an address; repeatable.")
@click.option("--here", is_flag=True, help="A package:// address is one of this machine, and is uploaded.")
@click.option("--adapter-of", default="", metavar="VERSION", help="The folder is a LoRA adapter of this base.")
@click.option("--config-only", is_flag=True, help="Take the configuration alone; weights are drawn from --seed.")
@click.option("--seed", default=0, show_default=True, help="Of the weights that are drawn.")
@json_option
@click.pass_obj
def import_model(connection: Connection, /, as_json: bool, **asked: Any) -> None:
    """Make a version from a Hugging Face folder (safetensors), or from an address that the registry fetches.

    Addresses: hf://owner/name[@revision], s3://bucket/prefix, package://name/path. The same content gives the same
    version. With --config-only give config.json or its folder, with the tokenizer's files beside it.
    """
    _tell(ModelImport(**asked).run(connection), as_json=as_json)


@models.command("list")
@filter_options
@json_option
@click.pass_obj
def list_models(connection: Connection, /, as_json: bool, **flags: Any) -> None:
    """List the project's models; with filters, those that match or whose newest version does."""
    with connection.client() as client:
        print_rows(
            client.models.list(filter_of(flags), order_by=flags["order_by"]),
            [
                ("model", lambda row: short(row.name)),
                ("latest", lambda row: short(row.latest_version)),
                ("task", lambda row: row.task),
                ("weights", lambda row: f"{row.parameters:,}" if row.parameters else "-"),
                ("tags", lambda row: ", ".join(row.tags)),
                ("created", lambda row: row.create_time),
                ("description", lambda row: row.description),
            ],
            as_json=as_json,
            nothing="no models; import one: tuneforge models import FOLDER --model ID",
        )


@models.command()
@click.argument("model", metavar="MODEL[/VERSION|@ALIAS]")
@json_option
@click.pass_obj
def show(connection: Connection, model: str, as_json: bool) -> None:
    """Show a model, or a version with all that it was made from."""
    is_version = "@" in model or model.count("/") in {1, 5}
    with connection.client() as client:
        found = client.models.version(model) if is_version else client.models.get(model)
        if as_json:
            print_json(found)
        else:
            print_fields(_fields(found, _aliases_by_version(client, found.name.partition("/versions/")[0])))


def _aliases_by_version(client: "Client", model: str) -> dict[str, list[str]]:
    """Returns version -> the aliases that name it now."""
    found: dict[str, list[str]] = {}
    for alias in client.aliases.list(model):
        found.setdefault(alias.version, []).append(alias.name.rpartition("/")[2])
    return found


def _fields(found: "Model | ModelVersion", aliases: Mapping[str, Sequence[str]]) -> list[tuple[str, object]]:
    from tuneforge.models import Model

    if isinstance(found, Model):
        named = [f"{alias} -> {short(version)}" for version, each in aliases.items() for alias in each]
        return [
            ("name", found.name),
            ("description", found.description),
            ("latest", found.latest_version),
            ("aliases", ", ".join(sorted(named))),
            ("created", found.create_time),
            ("creator", found.creator),
            *_said(found),
        ]
    lineage = found.lineage
    return [
        ("name", found.name),
        ("aliases", ", ".join(aliases.get(found.name, ()))),
        ("tainted by", revoked(found.taints)),
        ("kind", found.kind),
        ("task", found.task),
        ("architecture", found.architecture.class_name),
        ("parameters", f"{found.parameters:,}"),
        ("size", size(found.size_bytes)),
        ("digest", found.manifest.digest),
        ("files", ", ".join(file.path for file in found.manifest.files)),
        ("base", f"{lineage.base.version} {lineage.base.digest[:12]}" if lineage.base else None),
        ("dataset", f"{lineage.dataset.version} {lineage.dataset.digest[:12]}" if lineage.dataset else None),
        ("job", lineage.job),
        ("environment", lineage.environment),
        ("metrics", found.metrics),
        ("source", origin(found.source)),
        ("created", found.create_time),
        ("creator", found.creator),
        ("seed", found.seed),
        *_said(found),
    ]


def _said(found: "Model | ModelVersion") -> list[tuple[str, object]]:
    """What people have said of it; nothing where nobody has."""
    said = [("tags", ", ".join(found.tags)), ("license", found.license), ("domain", found.domain)]
    return [(name, value) for name, value in (*said, ("metadata", found.metadata)) if value]


@models.command()
@click.argument("model")
@filter_options
@json_option
@click.pass_obj
def versions(connection: Connection, /, model: str, as_json: bool, **flags: Any) -> None:
    """List the versions of a model, newest first unless sorted otherwise."""
    with connection.client() as client:
        aliases = {} if as_json else _aliases_by_version(client, model)
        print_rows(
            client.models.versions(model, filter_of(flags), order_by=flags["order_by"]),
            [
                ("version", lambda row: short(row.name)),
                ("aliases", lambda row: ", ".join(aliases.get(row.name, ())) or None),
                ("kind", lambda row: row.kind),
                ("base", lambda row: short(row.lineage.base.version) if row.lineage.base else "-"),
                ("job", lambda row: short(row.lineage.job)),
                ("loss", lambda row: row.metrics.get("evaluation_loss", row.metrics.get("loss"))),
                ("size", lambda row: size(row.size_bytes)),
                ("created", lambda row: row.create_time),
            ],
            as_json=as_json,
            nothing=f"no versions; import one: tuneforge models import FOLDER --model {model}",
        )


def _tell(version: "ModelVersion", *, as_json: bool) -> None:
    if as_json:
        print_json(version)
    else:
        kind = "adapter on " if version.kind == "ADAPTER" else ""
        what = f"{kind}{version.architecture.class_name}, {version.parameters:,} parameters"
        click.echo(f"{short(version.name)}: {what}, {size(version.size_bytes)}")
