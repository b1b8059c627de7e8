"""Gate policies as people write them, and promotion paths."""

import json
from pathlib import Path

import pytest

from tuneforge.errors import InvalidArgument
from tuneforge.gate_files import policy_of, read_policy
from tuneforge.gate_values import ApprovalGate, CheckGate, Comparator, ComparisonGate, GatePolicy, MetricGate
from tuneforge.promotion_paths import matching, path_problem, pattern_problem

TOML = """
alias = "prod*"
rollback_skips_gates = true

[[gates]]
id = "floor"
metric = "accuracy"
at_least = 1

[[gates]]
id = "mean"
metric = "exact_match"
on = "held-out/1"
more_than = 0.5

[[gates]]
id = "safe"
check = "safety"

[[gates]]
id = "better"
compare = "exact_match"
on = "held-out/1"
min_effect = 0.01
confidence = 0.9
seed = 3
slices = { short = 0.02 }

[[gates]]
id = "people"
approvals = 2
"""
POLICY = GatePolicy(
    alias="prod*",
    rollback_skips_gates=True,
    gates=(
        MetricGate(id="floor", metric="accuracy", comparator=Comparator.AT_LEAST, threshold=1.0),
        MetricGate(
            id="mean", metric="exact_match", comparator=Comparator.MORE_THAN, threshold=0.5, dataset="held-out/1"
        ),
        CheckGate(id="safe", check="safety"),
        ComparisonGate(
            id="better",
            metric="exact_match",
            dataset="held-out/1",
            min_effect=0.01,
            confidence=0.9,
            seed=3,
            slices={"short": 0.02},
        ),
        ApprovalGate(id="people", approvals=2),
    ),
)


def test_a_toml_file_and_a_json_file_say_the_same(tmp_path: Path) -> None:
    """Both are read to the same policy."""
    (tmp_path / "gates.toml").write_text(TOML)
    assert read_policy(tmp_path / "gates.toml") == POLICY
    import tomllib

    (tmp_path / "gates.json").write_text(json.dumps(tomllib.loads(TOML)))
    assert read_policy(tmp_path / "gates.json") == POLICY


def test_all_that_is_wrong_with_a_file_is_told_at_once() -> None:
    """Missing and unknown settings, wrong kinds, two rules in one gate, none at all."""
    content = {
        "aliaz": "production",
        "gates": [
            {"metric": "accuracy"},
            {"id": "a", "metric": "m", "at_least": "high"},
            {"id": "b", "metric": "m", "at_least": 1, "at_most": 2},
            {"id": "c", "check": "x", "approvals": 1},
            {"id": "d", "approvals": True},
            {"id": "e", "compare": "m", "slices": {"short": "much"}, "seeds": 1},
            "people",
        ],
    }
    with pytest.raises(InvalidArgument) as refusal:
        policy_of(content, source="gates.toml")
    assert [each.field for each in refusal.value.fields] == [
        "aliaz",
        "alias",
        "gates[0].id",
        "gates[0]",
        "gates[1].at_least",
        "gates[2]",
        "gates[3]",
        "gates[4].approvals",
        "gates[5].on",
        "gates[5].slices.short",
        "gates[5].seeds",
        "gates[6]",
        "gates[6].id",
        "gates[6]",
    ]


def test_a_file_that_cannot_be_read_is_told_as_such(tmp_path: Path) -> None:
    """Missing files, no TOML, nesting without end, and a key that comes twice are InvalidArgument with the path."""
    (tmp_path / "bad.toml").write_text("alias = ")
    (tmp_path / "deep.toml").write_text("alias = " + "[" * 100_000)
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "twice.json").write_text('{"alias": "a", "alias": "b"}')
    for name in ("none.toml", "bad.toml", "deep.toml", "deep.json", "twice.json"):
        with pytest.raises(InvalidArgument, match=name):
            read_policy(tmp_path / name)


def test_patterns_fit_names_wherever_they_lie() -> None:
    """A pattern without a slash fits the last part of a name; without patterns everything fits."""
    names = ["config.json", "eval/report.json", "model.pt"]
    assert matching(names, ["*.json"]) == ["config.json", "eval/report.json"]
    assert matching(names, ["eval/*"]) == ["eval/report.json"]
    assert matching(names, []) == names
    for bad in ("", "/etc/*", "../x", "a b", "x" * 201):
        assert pattern_problem(bad)
    assert not pattern_problem("*.json")


def test_paths_have_three_plain_parts() -> None:
    """Spaces, dots alone, empty and further parts are told."""
    for bad in ("a/b", "a/b/c/d", "a//c", "a/b/c/", "a/./c", "a/b c/d", ".hidden/b/c", "a/" + "b" * 101 + "/c"):
        assert path_problem(bad), bad
    assert not path_problem("a/b.c-d_e/3")
