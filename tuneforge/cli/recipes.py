"""`tuneforge recipes`."""

import json
from pathlib import Path
from typing import Any

import click

from tuneforge.cli.connection import CommandGroup, Connection, json_option
from tuneforge.cli.output import print_fields, print_json, print_rows, printable


@click.group(cls=CommandGroup)
def recipes() -> None:
    """Typed templates of runs, made by the operator."""


@recipes.command("list")
@click.option("--problems", is_flag=True, help="What gave no recipe, and why; for operators.")
@json_option
@click.pass_obj
def list_recipes(connection: Connection, problems: bool, as_json: bool) -> None:
    """List the recipes."""
    with connection.client() as client:
        if problems:
            print_rows(
                client.recipes.problems(),
                [
                    ("file", lambda row: row.file),
                    ("class", lambda row: row.class_name),
                    ("problem", lambda row: row.code),
                    ("what to do", lambda row: row.message),
                ],
                as_json=as_json,
                nothing="no problems, or you are no operator",
            )
            return
        print_rows(
            client.recipes.list(),
            [
                ("recipe", lambda row: row.name),
                ("task", lambda row: row.task),
                ("framework", lambda row: row.framework),
                ("devices", lambda row: ", ".join(row.device_types)),
                ("data set", lambda row: "required" if row.dataset_required else "-"),
                ("description", lambda row: row.description),
            ],
            as_json=as_json,
            nothing="no recipes; the operator puts them into the folder TUNEFORGE_REGISTRY_RECIPES",
        )


@recipes.command()
@click.argument("recipe")
@json_option
@click.pass_obj
def show(connection: Connection, recipe: str, as_json: bool) -> None:
    """Show a recipe and the arguments that it takes."""
    with connection.client() as client:
        found = client.recipes.get(recipe)
    if as_json:
        print_json(found)
        return
    print_fields(
        [
            ("name", found.name),
            ("description", found.description),
            ("project", found.project_url),
            ("framework", found.framework),
            ("task", found.task),
            ("image", found.image),
            ("served by", found.inference_name),
            ("devices", ", ".join(found.device_types)),
            ("data set", found.dataset_description),
            ("requests", found.resources.requests),
            ("limits", found.resources.limits),
            ("accelerators", f"{found.resources.accelerator_count} x {found.resources.cluster_nodes}"),
            ("promoted to", found.promotion_path),
            ("warnings", "; ".join(found.warnings)),
        ]
    )
    click.echo("arguments:")
    for name, schema in found.schema["properties"].items():
        click.echo(printable(f"  {name} = {json.dumps(schema['default'])}  {_limits(schema)}".rstrip()))


@recipes.command()
@click.argument("recipe")
@click.option("--arguments", default="", metavar="JSON", help="All arguments as a JSON object.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="One argument; repeatable.")
@click.option("--device", default="", help="Kind of device; the first of the recipe without it.")
@click.option("--dataset", default="", help="The data set.")
@json_option
@click.pass_obj
def resolve(connection: Connection, /, recipe: str, arguments: str, as_json: bool, **options: Any) -> None:
    """Check arguments and show what a run would be; nothing is started."""
    from tuneforge.recipes.description import parse_arguments
    from tuneforge.recipes.parameters import RecipeError

    try:
        given = parse_arguments(arguments)
    except RecipeError as error:
        raise click.UsageError(str(error)) from None
    for setting in options["settings"]:
        name, equals, text = setting.partition("=")
        if not equals:
            raise click.UsageError(f"--set {setting!r} is not of the form NAME=VALUE")
        try:
            given[name] = json.loads(text)
        except (ValueError, RecursionError):  # a text without quotes, as people write it
            given[name] = text
    with connection.client() as client:
        found = client.recipes.resolve(recipe, given, device=options["device"], dataset=options["dataset"])
    if as_json:
        print_json(found)
        return
    print_fields(
        [
            ("recipe", found.name),
            ("arguments", json.dumps(dict(found.arguments), ensure_ascii=False)),
            ("command", json.dumps(found.command, ensure_ascii=False)),
            ("image", found.image),
            ("device", found.device),
            ("data set", found.dataset_name),
            ("requests", found.resources.requests),
            ("limits", found.resources.limits),
            ("accelerators", f"{found.resources.accelerator_count} x {found.resources.cluster_nodes}"),
        ]
    )


@recipes.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.pass_context
def check(context: click.Context, path: Path) -> None:
    """Check a file or folder of recipes on this machine; the file is imported here, so check your own only."""
    from tuneforge.recipes.__main__ import main

    context.exit(main([str(path)]))


def _limits(schema: dict[str, Any]) -> str:
    words = [str(schema["type"])]
    for key, word in (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<")):
        if key in schema:
            words.append(f"{word} {schema[key]:g}")
    if "enum" in schema:
        words.append("one of " + ", ".join(map(str, schema["enum"])))
    return f"({', '.join(words)}) {schema.get('description', '')}"
