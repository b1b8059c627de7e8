"""`tuneforge gates` and `tuneforge evaluations`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuneforge.cli.aliases import AliasGroup, expected_option, reason_option
from tuneforge.cli.connection import CommandGroup, Connection, json_option
from tuneforge.cli.output import print_json, print_rows, printable, short

if TYPE_CHECKING:
    from tuneforge.gate_values import Gate, GatePolicy, GateReport


@click.group(cls=AliasGroup)
def gates() -> None:
    """What has to hold before an alias may be moved.

    MODEL ALIAS may be written MODEL@ALIAS too.
    """


@gates.command()
@click.argument("model")
@click.argument("policy", required=False)
@click.option("--revision", type=click.IntRange(1), help="As this revision had it.")
@click.option("--log", "is_log", is_flag=True, help="All its revisions, newest first.")
@json_option
@click.pass_obj
def show(
    connection: Connection, model: str, policy: str | None, *, revision: int | None, is_log: bool, as_json: bool
) -> None:
    """Show the gate policies of a model, or one of them."""
    with connection.client() as client:
        if is_log and policy:
            for change in client.gates.log(model, policy):
                if as_json:
                    print_json(change)
                else:
                    end = "deleted" if change.is_deletion else f"{len(change.policy.gates)} gates"
                    one = change.policy
                    click.echo(f"revision {one.revision}: {end}, by {one.actor}, {one.update_time}: {change.reason}")
            return
        found = [client.gates.get(model, policy, revision=revision or 0)] if policy else list(client.gates.list(model))
    if not found:
        click.echo(f"no gates; set some: tuneforge gates set {model} POLICY FILE", err=True)
    for each in found:
        if as_json:
            print_json(each)
        else:
            _print_policy(each)


def _print_policy(policy: "GatePolicy") -> None:
    name = policy.name.rpartition("/")[2]
    click.echo(f"{name} (revision {policy.revision}, etag {policy.etag}) for {policy.alias}")
    for gate in policy.gates:
        click.echo(f"  {gate.id}: {_words(gate)}")
    if policy.rollback_skips_gates:
        click.echo("  rollbacks are let through")


def _words(gate: "Gate") -> str:
    from tuneforge.gate_values import ApprovalGate, CheckGate, ComparisonGate

    if isinstance(gate, CheckGate):
        return f"the check {gate.check!r} has passed{_by(gate.by)}"
    if isinstance(gate, ApprovalGate):
        return f"{gate.approvals} approvals by others than the mover"
    if isinstance(gate, ComparisonGate):
        gain = f"at least {gate.min_effect:g}" if gate.min_effect else "more than 0"
        return f"{gate.metric} on {short(gate.dataset)} gains {gain} with {100 * gate.confidence:g} % confidence" + _by(
            gate.by
        )
    place = f" on {short(gate.dataset)}" if gate.dataset else ""
    return f"{gate.metric}{place} {gate.comparator.lower().replace('_', ' ')} {gate.threshold:g}{_by(gate.by)}"


def _by(reporters: tuple[str, ...]) -> str:
    """Returns whose reports count, where that is not who always counts."""
    return f", as reported by {', '.join(reporters)}" if reporters else ""


# The letter \b, on a line of its own, keeps the lines below it as they are; in a docstring it would be two letters.
_SET_HELP = """Set a gate policy from a TOML or JSON file.

\b
alias = "production"                  # or a pattern: prod-*
rollback_skips_gates = true
gates = [
  { id = "floor", metric = "accuracy", at_least = 0.8 },      # more_than, at_most, less_than
  { id = "safe", check = "safety", by = ["red-team"] },       # whose reports count
  { id = "better", compare = "accuracy", on = "held-out/1", min_effect = 0.01, slices = { short = 0.02 } },
  { id = "people", approvals = 2 },
]
"""


@gates.command("set", help=_SET_HELP)
@click.argument("model")
@click.argument("policy")
@click.argument("file", type=click.Path(path_type=Path))
@expected_option
@reason_option
@json_option
@click.pass_obj
def set_policy(connection: Connection, /, model: str, policy: str, file: Path, as_json: bool, **flags: str) -> None:
    """Set a gate policy; its help is above."""
    with connection.client() as client:
        found = client.gates.set(model, policy, file, expected=flags["expected"], reason=flags["reason"])
    if as_json:
        print_json(found)
    else:
        _print_policy(found)


@gates.command()
@click.argument("model")
@click.argument("policy")
@click.option("--etag", default="", help="Only if it still has this etag.")
@reason_option
@click.pass_obj
def delete(connection: Connection, model: str, policy: str, etag: str, reason: str) -> None:
    """Delete a gate policy; its revisions stay."""
    with connection.client() as client:
        client.gates.delete(model, policy, etag=etag, reason=reason)


@gates.command()
@click.argument("model")
@click.argument("alias")
@click.argument("version")
@json_option
@click.pass_obj
def check(connection: Connection, model: str, alias: str, version: str, as_json: bool) -> None:
    """Tell what the gates of an alias say of a version. Exit code 1 when one refuses it."""
    with connection.client() as client:
        report = client.gates.check(model, alias, version)
    if as_json:
        print_json(report)
    else:
        _print_report(report)
    sys.exit(0 if report.is_passed else 1)


def _print_report(report: "GateReport") -> None:
    for result in report.results:
        mark = "PASS" if result.is_passed else "FAIL"
        click.echo(f"{mark}  {result.policy.rpartition('/')[2]}/{result.gate}: {printable(result.sentence)}")
    passed = sum(result.is_passed for result in report.results)
    end = f"{passed} of {len(report.results)} gates passed" if report.results else "no gates"
    click.echo(f"{short(report.version)}: {end}")


@gates.command()
@click.argument("model")
@click.argument("alias")
@click.argument("version")
@click.option("--revoke", is_flag=True, help="Take an approval back.")
@reason_option
@json_option
@click.pass_obj
def approve(
    connection: Connection, model: str, alias: str, version: str, *, revoke: bool, reason: str, as_json: bool
) -> None:
    """Agree with a version behind an alias."""
    with connection.client() as client:
        act = client.gates.revoke_approval if revoke else client.gates.approve
        given = act(model, alias, version, reason=reason)
    if as_json:
        print_json(given)
    else:
        word = "does not approve" if given.is_revoked else "approves"
        click.echo(f"{given.actor} {word} {short(given.version)} for {short(given.alias)}")


@gates.command()
@click.argument("model")
@click.argument("alias")
@click.argument("version", required=False)
@json_option
@click.pass_obj
def approvals(connection: Connection, model: str, alias: str, version: str | None, as_json: bool) -> None:
    """List the approvals for an alias and those taken back, newest first."""
    with connection.client() as client:
        print_rows(
            client.gates.approvals(model, alias, version),
            [
                ("version", lambda row: short(row.version)),
                ("actor", lambda row: row.actor),
                ("state", lambda row: "taken back" if row.is_revoked else "approved"),
                ("time", lambda row: row.time),
                ("reason", lambda row: row.reason),
            ],
            as_json=as_json,
            nothing=f"no approvals; give one: tuneforge gates approve {model} {alias} VERSION",
        )


@click.group(cls=CommandGroup)
def evaluations() -> None:
    """Scores of versions, row by row, which comparisons rest on."""


@evaluations.command()
@click.argument("version", metavar="MODEL/VERSION")
@click.argument("dataset", metavar="DATASET/VERSION")
@click.argument("metric")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
@click.pass_obj
def record(connection: Connection, version: str, dataset: str, metric: str, *, file: Path, as_json: bool) -> None:
    """Keep the scores in a JSONL file: {"row": "<row id>", "score": 1.0, "slices": ["short"]} a line."""
    scores, slices = _read_scores(file)
    with connection.client() as client:
        kept = client.evaluations.record(version, dataset, metric, scores, slices=slices)
    if as_json:
        print_json(kept)
    else:
        click.echo(f"{short(kept.version)}: {kept.metric} {kept.mean:g} on {kept.rows} rows of {short(kept.dataset)}")


def _read_scores(file: Path) -> tuple[dict[str, float], dict[str, list[str]]]:
    scores: dict[str, float] = {}
    slices: dict[str, list[str]] = {}
    problems = []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise click.ClickException(f"{str(file)!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        message = f"{str(file)!r} cannot be read: it is no text in UTF-8, from byte {error.start} on"
        raise click.ClickException(message) from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry: Any = json.loads(line)
            row, score = str(entry["row"]), float(entry["score"])
            labels = [str(label) for label in entry.get("slices", [])]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            problems.append(f"  line {number}: give an object with row, score and perhaps slices")
            continue
        if row in scores:
            problems.append(f"  line {number}: the row {row[:12]} comes a second time")
        scores[row] = score
        for label in labels:
            slices.setdefault(label, []).append(row)
    if problems:
        shown = "\n".join(problems[:20])
        raise click.ClickException(f"{str(file)!r} has {len(problems)} lines that cannot be read\n{shown}")
    if not scores:
        raise click.ClickException(
            f'{str(file)!r} has no scores; give a line {{"row": ..., "score": ...}} for each row'
        )
    return scores, slices


@evaluations.command("list")
@click.argument("version", metavar="MODEL/VERSION")
@json_option
@click.pass_obj
def list_evaluations(connection: Connection, version: str, as_json: bool) -> None:
    """List what a version was evaluated on."""
    with connection.client() as client:
        print_rows(
            client.evaluations.list(version),
            [
                ("metric", lambda row: row.metric),
                ("dataset", lambda row: short(row.dataset)),
                ("rows", lambda row: row.rows),
                ("mean", lambda row: row.mean),
                ("slices", lambda row: ", ".join(row.slices)),
                ("recorded", lambda row: row.create_time),
                ("creator", lambda row: row.creator),
                ("roles", lambda row: ", ".join(row.roles)),
            ],
            as_json=as_json,
            nothing=f"no evaluations; record one: tuneforge evaluations record {version} DATASET/1 METRIC FILE",
        )
