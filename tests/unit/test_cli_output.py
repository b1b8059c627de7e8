"""How values are printed."""

import json
import math
from datetime import UTC, datetime

import pytest

from tuneforge.cli.output import clock, print_fields, print_rows, size, to_plain
from tuneforge.events import LogLine, LogSeverity
from tuneforge.specs.spec import BaseModel, DataConfig, DataSource, LoraMethod, TrainingSpec


@pytest.mark.parametrize(
    ("num_bytes", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_234_567, "1.23 MB"), (141 * 10**9, "141 GB")]
)
def test_sizes_have_three_digits(num_bytes: int, text: str) -> None:
    """Sizes are decimal."""
    assert size(num_bytes) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (727, "12:07"), (10_859, "3:00:59")])
def test_durations_read_like_a_clock(seconds: float, text: str) -> None:
    """Minutes and seconds, hours when there are some."""
    assert clock(seconds) == text


def test_plain_values_are_json() -> None:
    """Dataclasses, times, words and numbers that JSON lacks."""
    value = {
        "log": LogLine(severity=LogSeverity.INFO, message="x"),
        "time": datetime(2026, 1, 2, tzinfo=UTC),
        "loss": math.nan,
        "most": -math.inf,
        "list": (1, None, True),
    }
    assert json.loads(json.dumps(to_plain(value), allow_nan=False)) == {
        "log": {"severity": "INFO", "message": "x"},
        "time": "2026-01-02T00:00:00Z",
        "loss": "NaN",
        "most": "-Infinity",
        "list": [1, None, True],
    }


def test_a_spec_is_printed_in_the_form_that_submit_reads() -> None:
    """`jobs show --json` gives what `jobs submit --spec` takes."""
    from tuneforge._spec_input import read_spec
    from tuneforge.specs.wire import spec_from_proto

    spec = TrainingSpec(
        base=BaseModel(model="projects/default/models/m/versions/1"),
        data=DataConfig(train=DataSource(dataset="projects/default/datasets/rows")),
        method=LoraMethod(rank=4, dropout=0.0),
        seed=7,
    )
    assert spec_from_proto(read_spec(to_plain(spec), "default")) == spec


def test_lists_are_aligned_and_safe(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns line up; a value cannot break the line or command the terminal."""
    print_rows(
        [("a", "x\ny\x1b[0m"), ("long", "z")],
        [("id", lambda row: row[0]), ("text", lambda row: row[1])],
        as_json=False,
        nothing="none",
    )
    assert capsys.readouterr().out.splitlines() == ["ID    TEXT", "a     x y\ufffd[0m", "long  z"]


def test_an_empty_list_says_how_to_make_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing on stdout, a hint on stderr; JSON has neither."""
    print_rows([], [("id", str)], as_json=False, nothing="no jobs; make one")
    print_rows([], [("id", str)], as_json=True, nothing="no jobs; make one")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "no jobs; make one\n")


def test_fields_without_a_value_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Zero is a value, None is not."""
    print_fields([("a", None), ("long", 0), ("b", "")])
    assert capsys.readouterr().out == "long: 0\n"
