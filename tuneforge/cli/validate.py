"""`tuneforge validate`: is what a run left in a folder whole and plausible?"""

from pathlib import Path

import click

_FILE = click.Path(path_type=Path)


@click.command()
@click.option("--training-info", required=True, type=_FILE, metavar="FILE", help="training_info.json of the run.")
@click.option("--model-path", required=True, type=_FILE, metavar="FOLDER", help="The result: a model or an adapter.")
@click.option("--base-path", type=_FILE, metavar="FOLDER", help="Base of an adapter.  [default: what the info names]")
@click.option("--checkpoint-path", type=_FILE, metavar="FOLDER", help="A checkpoint, or where checkpoint-* are.")
@click.option("--profile-path", type=_FILE, metavar="FILE", help="aim_profile.json of the run.")
@click.option("--test-dataset", type=_FILE, metavar="FILE", help="JSONL of prompts, with `keywords` if wanted.")
@click.option("--output", type=_FILE, metavar="FILE", help="Keeps the report: as JSON when it ends with .json.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def validate(
    training_info: Path,
    model_path: Path,
    base_path: Path | None,
    checkpoint_path: Path | None,
    profile_path: Path | None,
    test_dataset: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Check the loss, the answers, the checkpoint and the profile of a run. Exit code 0 only when each check passed."""
    from tuneforge.checks import report_json, report_text
    from tuneforge.one_shot.validation import MissingInfo, ValidationRequest
    from tuneforge.one_shot.validation import validate as examine

    request = ValidationRequest(
        training_info=training_info,
        model=model_path,
        base=base_path,
        checkpoint=checkpoint_path,
        profile=profile_path,
        test_rows=test_dataset,
    )
    try:
        checks, not_run = examine(request)
    except MissingInfo as error:
        raise click.ClickException(f"--training-info: {error}") from None
    write = {True: report_json, False: report_text}
    click.echo(write[as_json](str(model_path), checks, not_run), nl=False)
    if output is not None:
        output.write_text(write[output.suffix == ".json"](str(model_path), checks, not_run), encoding="utf-8")
    if not all(check.passed for check in checks):
        raise click.exceptions.Exit(1)
