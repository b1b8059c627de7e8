"""The report beside a result: only what repeats with the run, as in every file of a version (see `documents`)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from google.protobuf import json_format

from services.trainer.engine.curve import Point, column
from services.trainer.engine.documents import ResultFacts
from tuneforge.charts import Chart
from tuneforge.checks import Check
from tuneforge.report_page import REPORT, Section, report_page
from tuneforge.specs.profile_documents import method_word, tuned_id
from tuneforge.specs.wire import spec_to_proto

_PLOTS = (
    ("Loss of each step", "loss", 1),
    ("Learning rate", "rate", 2),
    ("Norm of the gradients before clipping", "norm", 3),
    ("Tokens of each step", "tokens", 4),
)
"""Title, unit, place in a point."""
_ENVIRONMENT = ("python", "torch", "transformers", "peft", "bitsandbytes", "device", "threads", "platform")


def write_report(
    folder: Path,
    facts: ResultFacts,
    *,
    points: Sequence[Point] = (),
    evaluations: Sequence[Sequence[float]] = (),
    answers: Sequence[tuple[str, str]] = (),
    checks: Sequence[Check] = (),
    not_run: Mapping[str, str],
) -> None:
    """Writes `report.html`.

    Args:
        folder: Of the result.
        facts: What is known of it.
        points: What steps gave.
        evaluations: (step, validation loss) of every evaluation.
        answers: Prompts, and what the model said to them at the end.
        checks: What was found.
        not_run: Checks that could not be made, with the reason.
    """
    charts = [
        Chart(title=title, x_label="steps", y_label=unit, points=column(points, place)) for title, unit, place in _PLOTS
    ]
    measured = [(step, loss) for step, loss in evaluations]
    charts.insert(1, Chart(title="Validation loss", x_label="steps", y_label="loss", points=measured))
    found = [[check.name, "PASS" if check.passed else "FAIL", _score(check), check.message] for check in checks]
    found += [[name, "not run", "", reason] for name, reason in sorted(not_run.items())]
    # Where the result goes is by default the job's own name, which must not be in it.
    spec = spec_to_proto(replace(facts.spec, output_model=None))
    message = json_format.MessageToJson(spec, preserving_proto_field_name=True, sort_keys=True)
    sections = [
        Section(title="Result", facts=_result(facts)),
        Section(title="Run", charts=[chart for chart in charts if chart.points]),
        Section(title="Checks", table=[["check", "result", "score", "what was found"], *found] if found else ()),
        Section(title="Answers", table=[["prompt", "answer"], *map(list, answers)] if answers else ()),
        Section(title="Data", facts={f"{name} (SHA-256)": digest for name, digest in facts.inputs.items() if digest}),
        Section(
            title="Environment",
            facts={name: facts.environment[name] for name in _ENVIRONMENT if name in facts.environment},
        ),
        Section(title="Spec", text=message),
    ]
    (folder / REPORT).write_text(report_page(tuned_id(facts.base_id), sections), encoding="utf-8")


def _result(facts: ResultFacts) -> dict[str, str]:
    content = {
        "base": f"{facts.base_version or facts.base_id} ({facts.base_digest[:12]})",
        "architecture": facts.architecture,
        "weights of the whole model": f"{facts.base_parameters:,}",
        "method": method_word(facts.spec),
        "loss": _number(facts.metrics.get("loss")),
        "validation loss": _number(facts.metrics.get("evaluation_loss")),
    }
    if facts.merged is not None:
        content["merged, in format"] = facts.merged.format
        content["base was kept in"] = facts.merged.base_quantization
        content |= {name.replace("_", " "): _number(value) for name, value in facts.merged.figures.items()}
    return {name: value for name, value in content.items() if value}


def _score(check: Check) -> str:
    return _number(check.score) + (f" (threshold {check.threshold:g})" if check.threshold is not None else "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
