"""Rows of every shape are looked at, labels are counted, oddities of characters are found, memory stays bounded."""

import json
import random
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tests.unit.lint import corpus
from tuneforge.data.lint import Finding, LintOptions, Rows, Summary, lint
from tuneforge.data.lint.characters import oddities
from tuneforge.data.split import Split

SECRET = corpus.AWS_KEY
SHAPES: dict[str, tuple[dict[str, Any], str]] = {
    "messages": (corpus.chat("Hi", f"It is {SECRET}"), "messages[1].content"),
    "tool-call": (
        {
            "messages": [
                {"role": "user", "content": "Go"},
                {"role": "assistant", "tool_calls": [{"function": {"name": "go", "arguments": {"key": SECRET}}}]},
            ]
        },
        "messages[1].tool_calls",
    ),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": SECRET}]},
        "messages[1].content",
    ),
    "instruction": ({"instruction": "Do", "input": f"with {SECRET}", "output": "Done"}, "input"),
    "prompt": ({"prompt": f"Say {SECRET}", "completion": "No"}, "prompt"),
    "text": ({"text": f"All is {SECRET}"}, "text"),
    "preference": ({"prompt": "Which?", "chosen": f"This {SECRET}", "rejected": "That"}, "chosen"),
    "preference-turns": (
        {
            "prompt": [{"role": "user", "content": "Which?"}],
            "chosen": [{"role": "assistant", "content": f"This {SECRET}"}],
            "rejected": [{"role": "assistant", "content": "That"}],
        },
        "chosen[0].content",
    ),
    "text-label": ({"text": f"It says {SECRET}", "label": "good"}, "text"),
    "session": (
        {"session_id": "1", "search_query": f"where is {SECRET}", "search_results": [{"object_id": "a", "rank": 1}]},
        "search_query",
    ),
}


def _found(path: Path, only: tuple[str, ...] = (), validation: Path | None = None) -> tuple[list[Finding], Summary]:
    held_out = {validation.name: validation} if validation else {}
    items = list(lint(Rows(files={path.name: path}, validation=held_out), LintOptions(only=only)))
    summary = items[-1]
    assert isinstance(summary, Summary)
    return [item for item in items if isinstance(item, Finding)], summary


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", SHAPES)
def test_every_text_of_every_shape_is_looked_at(tmp_path: Path, name: str) -> None:
    """A secret is found in its place, whatever the shape; copies are found too."""
    row, field = SHAPES[name]
    findings, _ = _found(_write(tmp_path / "rows.jsonl", [row, row]))
    assert {(each.code, each.field) for each in findings if each.code != "SINGLE_LABEL"} == {
        ("SECRET", field),
        ("DUPLICATE_ROW", ""),
    }


def test_equal_pairs_and_unknown_tools_are_told(tmp_path: Path) -> None:
    """A pair without a difference is an error; a call of a tool that is not offered is a warning."""
    pair = {"prompt": "Which?", "chosen": "This", "rejected": "This"}
    assert [each.code for each in _found(_write(tmp_path / "pairs.jsonl", [pair]))[0]] == ["EQUAL_PAIR"]
    row = dict(SHAPES["tool-call"][0], tools=[{"type": "function", "function": {"name": "stay"}}])
    findings, _ = _found(_write(tmp_path / "tools.jsonl", [row]), only=("conversations",))
    assert [(each.code, each.field) for each in findings] == [("UNKNOWN_TOOL", "messages[1].tool_calls")]


def test_an_id_of_two_rows_is_told(tmp_path: Path) -> None:
    """The same id with other content is told; copies of a row with its id are copies only."""
    rows = [{"id": "a", **corpus.chat("1?", "one")}, {"id": "a", **corpus.chat("2?", "two")}]
    findings, _ = _found(_write(tmp_path / "rows.jsonl", [*rows, rows[0]]), ("duplicates",))
    assert sorted(each.code for each in findings if each.check != "rows") == ["DUPLICATE_ID", "DUPLICATE_ROW"]


def test_labels_are_compared(tmp_path: Path) -> None:
    """Rare labels, labels in two spellings and labels that are only measured are told, with their numbers."""
    rows = [{"text": f"text {n}", "label": "good" if n % 20 else "bad"} for n in range(100)]
    rows += [{"text": f"more {n}", "label": "Good"} for n in range(10)]
    validation = _write(tmp_path / "validation.jsonl", [{"text": "other", "label": "ugly"}])
    findings, _ = _found(_write(tmp_path / "rows.jsonl", rows), ("labels",), validation)
    assert sorted((each.code, each.severity.value) for each in findings) == [
        ("LABEL_IMBALANCE", "WARNING"),
        ("LABEL_SPELLING", "WARNING"),
        ("UNTAUGHT_LABEL", "ERROR"),
    ]
    imbalance = next(each for each in findings if each.code == "LABEL_IMBALANCE")
    assert imbalance.message == "The label 'good' has 95 rows, 'bad' has 5."


def test_answers_that_are_no_labels_are_not_counted(tmp_path: Path) -> None:
    """Free answers, however short, are no labels; short ones that come again and again are."""
    free = [corpus.chat(f"Question {n}?", f"Answer {n}.") for n in range(100)]
    assert _found(_write(tmp_path / "free.jsonl", free), ("labels",))[0] == []
    classes = [corpus.chat(f"Is {n} even?", "yes" if n % 25 else "no") for n in range(100)]
    findings, _ = _found(_write(tmp_path / "classes.jsonl", classes), ("labels",))
    assert [each.code for each in findings] == ["LABEL_IMBALANCE"]


def test_a_split_by_ratio_keeps_copies_together_and_tells_leaks(tmp_path: Path) -> None:
    """Equal rows fall on one side; near copies may not, and are told."""
    rows = [corpus.chat(f"Tell of keeper number {n}, please.", corpus.LONG) for n in range(40)]
    path = _write(tmp_path / "rows.jsonl", rows + rows)
    items = list(lint(Rows(files={path.name: path}, split=Split(validation_ratio=0.3, seed=1))))
    summary = items[-1]
    assert isinstance(summary, Summary)
    assert summary.rows + summary.validation_rows == 80
    assert summary.validation_rows % 2 == 0
    assert 0 < summary.validation_rows < 48
    assert "LEAKED_ROW" not in summary.by_code
    assert summary.by_code["LEAKED_NEAR_DUPLICATE"] == summary.validation_rows // 2


def test_files_named_for_validation_are_that(tmp_path: Path) -> None:
    """The file names of a data set divide its rows, whatever the order of the files."""
    row = corpus.chat("Where is the key?", "Under the mat.")
    files = {name: _write(tmp_path / name, [row]) for name in ("test.jsonl", "train.jsonl")}
    items = list(lint(Rows(files=files)))
    findings = [item for item in items if isinstance(item, Finding)]
    assert [(each.code, each.file) for each in findings] == [("LEAKED_ROW", "test.jsonl")]


@pytest.mark.parametrize(
    "text",
    [
        "Grüße aus Köln — „schön“ € 5 … naïve café",
        "Ça coûte 3 £, señor; ÀÉÎÕÜ ß æ ø å",
        "نص عربي مع\u200c فاصل", "हिन्दी क्\u200dष", "\U0001f469\u200d\U0001f469\u200d\U0001f467 family",
        "tab\tand\nline\r\nends", "日本語のテキスト", "ÂNGELA e ÃO",
    ],
)  # fmt: skip
def test_honest_texts_have_no_oddities(text: str) -> None:
    """Letters with accents, other scripts and joined emoji are as they should be."""
    assert list(oddities(text)) == []


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("cafÃ© au lait", {"MOJIBAKE"}),
        ("itâ€™s", {"MOJIBAKE"}),
        ("\u041f\u0440\u0438".encode().decode("cp1252"), {"MOJIBAKE"}),
        ("a\ufeffb\u00ad", {"INVISIBLE_CHARACTER"}),
        ("\u2066abc\u2069", {"DIRECTION_OVERRIDE"}),
        ("o\u0308", {"NOT_NORMALIZED"}),
        ("\x1b[31m red", {"CONTROL_CHARACTER"}),
    ],
)
def test_oddities_are_told(text: str, codes: set[str]) -> None:
    """Each kind is told once."""
    assert {code for code, _, _ in oddities(text)} == codes


@pytest.mark.parametrize(
    "piece", ["\u0301", "a\u0301", "\u202e", "\u00c3\u00a9", "\U000e0001", "\u0378", "\u0130", "sk-", "AB12 ", "\u00e9"]
)
def test_hostile_rows_take_time_in_proportion(tmp_path: Path, piece: str) -> None:
    """Combining bombs, unassigned planes and endless runs of odd characters are looked at in a moment."""
    path = _write(tmp_path / "rows.jsonl", [corpus.chat("q", piece * (100_000 // len(piece)))])
    began = time.process_time()
    _, summary = _found(path)
    assert summary.malformed == 0
    assert time.process_time() - began < 2


def test_memory_grows_by_little_with_the_rows(tmp_path: Path) -> None:
    """1200 rows more take less than a kilobyte each, with every check that needs no model."""
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghijklmnop", k=6)) for _ in range(500)]

    def peak(rows: int) -> int:
        path = tmp_path / f"{rows}.jsonl"
        with path.open("w") as file:
            for _ in range(rows):
                file.write(
                    json.dumps(corpus.chat(" ".join(rng.choices(words, k=4)), " ".join(rng.choices(words, k=5))))
                )
                file.write("\n")
        tracemalloc.start()
        try:
            for _ in lint(Rows(files={path.name: path})):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(1500) - peak(300) < 1200 * 1024
