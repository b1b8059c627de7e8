"""What decides the demo: its scoring, its rows and its spec."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples.scoring import score
from tuneforge._spec_input import read_spec
from tuneforge.charts import Chart, line_chart
from tuneforge.data.rows import check_file
from tuneforge.specs.validation import validate
from tuneforge.specs.wire import spec_from_proto

FOLDER = Path(__file__).parents[2] / "examples" / "support_routing"
WORDS_IN_A_ROW = 5


def messages(name: str) -> list[str]:
    """Returns the customers' messages of a file."""
    lines = (FOLDER / name).read_text().splitlines()
    return [json.loads(line)["messages"][1]["content"] for line in lines]


def runs(text: str) -> set[tuple[str, ...]]:
    """Returns every run of five words."""
    words = text.lower().split()
    return {tuple(words[start : start + WORDS_IN_A_ROW]) for start in range(len(words) - WORDS_IN_A_ROW + 1)}


@pytest.mark.parametrize(
    ("answer", "exact", "fields"),
    [
        ('{"team": "a", "urgency":"low"}', 1.0, {"team": 1.0, "urgency": 1.0}),
        ('{"team":"b","urgency":"low"}', 0.0, {"team": 0.0, "urgency": 1.0}),
        ('{"team":"a","urgency":"low","more":1}', 0.0, {"team": 1.0, "urgency": 1.0}),
        ("The team is a.", 0.0, {"team": 0.0, "urgency": 0.0}),
        ("[1]", 0.0, {"team": 0.0, "urgency": 0.0}),
    ],
)
def test_score(answer: str, exact: float, fields: dict[str, float]) -> None:
    """An answer counts when it is the expected object; each field counts by itself; no JSON counts nothing."""
    found = score([answer], ['{"team":"a","urgency":"low"}'])
    assert (found.exact_match, found.field_accuracy) == (exact, fields)


def test_rows_are_enough_and_well_formed() -> None:
    """There are at least 300 training and 50 held-out rows, all of them without a fault."""
    for name, least in (("train.jsonl", 300), ("heldout.jsonl", 50)):
        report = check_file(FOLDER / name)
        assert report.problems == ()
        assert report.rows >= least


def test_heldout_wordings_never_occur_in_training() -> None:
    """No run of five words is in both files."""
    trained = set().union(*map(runs, messages("train.jsonl")))
    assert [text for text in messages("heldout.jsonl") if runs(text) & trained] == []


def test_spec_of_the_demo_is_valid() -> None:
    """The demo's spec has no fault that can be seen without the base."""
    assert validate(spec_from_proto(read_spec(FOLDER / "spec.json", "default"))) == []


def test_chart_escapes_what_it_shows() -> None:
    """Text in a chart is text, and a chart of one point says that it is none."""
    chart = Chart(title="<b>", x_label="x", y_label="y", points=[(0, 1), (1, 2)])
    assert "<b>" not in line_chart(chart)
    assert "polyline" in line_chart(chart)
    assert "fewer than two" in line_chart(Chart(title="t", x_label="x", y_label="y", points=[(0, 1)]))
