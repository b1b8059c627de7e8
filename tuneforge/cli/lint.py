"""`tuneforge datasets lint` and `tuneforge datasets preview`."""

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tuneforge.cli.connection import ConnectedCommand, Connection, json_option
from tuneforge.cli.output import print_json, printable, shown

if TYPE_CHECKING:
    from tuneforge.linting import Finding, Findings, LengthPolicy, LintOptions, RowPreview, Summary

_COLOURS: Final = {"ERROR": "red", "WARNING": "yellow", "INFO": "cyan"}
_SHOWN: Final = 20
_NOTHING: Final = ("none", "error", "warning", "info")


_config_option = click.option(
    "--config", default="", metavar="NAME", help="Of a folder whose README.md names several; else its default."
)


def _length_options(command: Any) -> Any:
    """For both commands."""
    command = click.option(
        "--overlong",
        type=click.Choice(["drop", "truncate", "refuse", "split"]),
        default="drop",
        show_default=True,
        help="What happens to longer rows; `split` is what continued pre-training does.",
    )(command)
    return click.option(
        "--max-tokens", type=click.IntRange(1, 1 << 20), default=1024, show_default=True, help="Most tokens of a row."
    )(command)


def _list_checks(context: click.Context, _parameter: click.Parameter, is_asked: bool) -> None:
    if not is_asked:
        return
    from tuneforge.linting import CHECKS

    for name, check in CHECKS.items():
        model = ", needs --model" if check.needs_model else ""
        click.echo(f"{name} ({check.group}{model}): {(check.__doc__ or '').splitlines()[0]}")
        click.echo(f"  {', '.join(check.codes)}")
    context.exit()


@click.command(cls=ConnectedCommand)
@click.argument("rows", nargs=-1, required=True, metavar="FILE...|DATASET[/VERSION]")
@click.option("--validation", multiple=True, metavar="FILE|DATASET[/VERSION]", help="Rows that are measured with.")
@_config_option
@click.option("--model", metavar="MODEL[/VERSION|@ALIAS]|FOLDER", help="Its tokenizer and chat template are used.")
@_length_options
@click.option("--check", "checks", multiple=True, metavar="NAME", help="Run only these checks or groups of checks.")
@click.option("--no-check", "without", multiple=True, metavar="NAME", help="Do not run these.")
@click.option(
    "--fail-on", type=click.Choice(_NOTHING), default="error", show_default=True, help="Exit with 1 when found."
)
@click.option(
    "--list-checks", is_flag=True, is_eager=True, expose_value=False, callback=_list_checks, help="Show all checks."
)
@click.option("--all", "show_all", is_flag=True, help=f"Show every finding, not {_SHOWN} of each code.")
@json_option
@click.pass_context
def lint(context: click.Context, /, **options: Any) -> None:
    """Say what is wrong with rows: files on disk, without any service, or a version at the registry.

    Of a folder it looks at what an upload would take: one configuration, where the card (README.md) names some. Exits
    with 1 when something as bad as --fail-on was found. Secrets and personal data are told by kind and place,
    never shown.
    """
    from tuneforge.linting import LintOptions, Severity

    length = _length(options)
    wanted = LintOptions(only=options["checks"], without=options["without"], length=length)
    what = (options["rows"], options["validation"], options["model"], options["config"])
    fail_on = options["fail_on"]
    with contextlib.ExitStack() as stack:
        tell = stack.enter_context(_progress())
        findings = stack.enter_context(_found(stack, context.obj, what, wanted, tell))
        if options["as_json"]:
            for finding in findings:
                print_json({"finding": finding})
            summary = findings.summary
            print_json({"summary": summary})
        else:
            summary = _print_findings(findings, most=None if options["show_all"] else _SHOWN)
    if fail_on != "none" and summary.fails(Severity(fail_on.upper())):
        context.exit(1)


@click.command(cls=ConnectedCommand)
@click.argument("rows", nargs=-1, required=True, metavar="FILE...|DATASET[/VERSION]")
@click.option("--row", required=True, metavar="N|ID", help="Number of the row, from 1, or the beginning of its id.")
@_config_option
@click.option("--model", required=True, metavar="MODEL[/VERSION|@ALIAS]|FOLDER", help="Whose tokens are drawn.")
@_length_options
@click.option("--rejected", is_flag=True, help="Of a pair of answers, the rejected one.")
@click.option("--plain", is_flag=True, help="Marks instead of colours: [learned], {cut}.")
@json_option
@click.pass_obj
def preview(connection: Connection, /, **options: Any) -> None:
    """Draw one row token by token: green is learned, grey is read, red is cut off.

    The trainer makes its labels with the same functions.
    """
    from tuneforge.linting import preview_file_row

    rows, row, model = options["rows"], options["row"], options["model"]
    wanted: int | str = int(row) if row.isdecimal() and len(row) < 12 else row
    drawing: dict[str, Any] = {"length": _length(options), "rejected": options["rejected"]}
    if _are_files(rows):
        drawn = preview_file_row(rows, wanted, model=_folder(model), config=options["config"], **drawing)
    else:
        _refuse_config(options["config"])
        with connection.client() as client:
            drawn = client.datasets.preview(_one(rows, "version"), wanted, model=model, **drawing)
    if options["as_json"]:
        print_json(drawn)
        return
    is_plain = options["plain"] or not sys.stdout.isatty()
    click.echo(_heading(drawn))
    click.echo(painted(drawn, is_plain=is_plain))


def painted(drawn: "RowPreview", *, is_plain: bool) -> str:
    """Returns the text of a row with its learned and its cut tokens marked, by colour or by brackets."""
    styles: dict[str, dict[str, Any]] = {"LEARNED": {"fg": "green", "bold": True}, "CUT": {"fg": "red", "dim": True}}
    marks = {"LEARNED": ("[", "]"), "CUT": ("{", "}")}
    pieces = []
    for fate, text in _runs(drawn):
        if is_plain:
            before, after = marks.get(fate, ("", ""))
            pieces.append(f"{before}{text}{after}")
        else:
            # A colour goes on over line ends in few terminals only, so each line is coloured by itself.
            style = styles.get(fate, {"dim": True})
            pieces.append("\n".join(click.style(line, **style) if line else "" for line in text.split("\n")))
    return "".join(pieces)


def _runs(drawn: "RowPreview") -> Iterator[tuple[str, str]]:
    """Yields (fate, text) of neighbouring tokens with the same fate."""
    fate, text = "", ""
    for token in drawn.tokens:
        if token.fate != fate and text:
            yield fate, printable(text)
            text = ""
        fate, text = token.fate.value, text + token.text
    if text:
        yield fate, printable(text)


def _heading(drawn: "RowPreview") -> str:
    cut = sum(token.fate == "CUT" for token in drawn.tokens)
    place = f"{drawn.file}:{drawn.line}"
    counts = f"{len(drawn.tokens)} tokens, {drawn.num_learned} learned, {cut} cut off"
    return f"{place}  {drawn.row_id[:12]}  {drawn.fate.value.lower()}: {counts}"


def _print_findings(findings: "Findings", *, most: int | None) -> "Summary":
    """Prints findings as they come, at most so many of a code, then the counts."""
    seen: Counter[str] = Counter()
    for finding in findings:
        seen[finding.code] += 1
        if most is None or seen[finding.code] <= most:
            _print_finding(finding)
    summary = findings.summary
    for code, count in summary.by_code.items():
        hidden = count - min(seen[code], most if most is not None else count)
        if hidden:
            click.echo(f"... and {hidden} more {code}")
    by_severity = ", ".join(f"{summary.by_severity[name]} {name.lower()}" for name in _COLOURS)
    rows = f"{summary.rows} rows" + (f", {summary.validation_rows} for validation" if summary.validation_rows else "")
    click.echo(f"{rows}: {by_severity}")
    if summary.tokens is not None:
        tokens = summary.tokens
        click.echo(
            f"tokens: {tokens.tokens}, {tokens.supervised} learned; half of the rows have up to {tokens.p50}, 90 % "
            f"{tokens.p90}, 99 % {tokens.p99}, the longest {tokens.longest}; {tokens.dropped} rows left out, "
            f"{tokens.truncated} cut"
        )
    for name, reason in summary.skipped.items():
        click.echo(f"not run: {name}: {reason}")
    return summary


def _print_finding(finding: "Finding") -> None:
    place = f"{finding.file}:{finding.line}" if finding.line else finding.file or "all rows"
    where = " ".join(filter(None, (place, finding.field, finding.row_id[:12])))
    severity = click.style(finding.severity.value.lower(), fg=_COLOURS[finding.severity.value])
    guess = " (probable)" if finding.is_probable else ""
    other = f" The other row: {finding.related_row_id[:12]}." if finding.related_row_id else ""
    text = f"{shown(finding.message)}{other} {shown(finding.cure)}"
    click.echo(f"{shown(where)}: {severity} {finding.code}{guess}: {text}")


def _found(
    stack: contextlib.ExitStack,
    connection: Connection,
    what: tuple[Sequence[str], Sequence[str], str | None, str],
    options: "LintOptions",
    tell: Any,
) -> "Findings":
    from tuneforge.linting import lint_files

    rows, validation, model, config = what
    if _are_files(rows):
        return lint_files(
            rows,
            validation=validation or None,
            model=_folder(model) if model else None,
            options=options,
            config=config,
            on_progress=tell,
        )
    _refuse_config(config)
    client = stack.enter_context(connection.client())
    return client.datasets.lint(
        _one(rows, "version"),
        validation=_one(validation, "--validation") if validation else None,
        model=model,
        options=options,
        on_progress=tell,
    )


def _are_files(rows: Sequence[str]) -> bool:
    """Tells files from the name of a version: what is there is a file, and so is what has an ending."""
    if len(rows) > 1 or Path(rows[0]).exists():
        return True
    return rows[0].startswith((".", "/", "~")) or bool(Path(rows[0]).suffix) or rows[0].count("/") not in {0, 1, 3, 5}


def _refuse_config(config: str) -> None:
    if config:
        raise click.UsageError("--config is for a folder on disk: a version has the files of one configuration.")


def _one(values: Sequence[str], name: str) -> str:
    if len(values) != 1:
        raise click.UsageError(f"Give one {name} of a data set, or files that are there.")
    return values[0]


def _folder(model: str) -> str:
    if not Path(model).is_dir():
        message = f"{model!r} is no folder; with files on disk --model is the folder of a model."
        raise click.UsageError(message)
    return model


def _length(options: dict[str, Any]) -> "LengthPolicy":
    from tuneforge.linting import LengthPolicy
    from tuneforge.specs.spec import OverlongPolicy

    return LengthPolicy(max_tokens=options["max_tokens"], overlong=OverlongPolicy(options["overlong"]))


@contextlib.contextmanager
def _progress() -> Iterator[Any]:
    """Shows how many rows were read, on a terminal only; yields what to tell it to."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status("reading rows") as status:
        yield lambda progress: status.update(
            f"{progress.rows} rows read" if progress.file else f"comparing {progress.rows} rows"
        )
