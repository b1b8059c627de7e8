"""Every shape is recognised by its columns and stated; what nearly is one is told what it lacks."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.data.reading import contents, errors, read, remarks
from tuneforge.data.formats import ParsedRow
from tuneforge.data.rows import MalformedRow, ToolCall, to_row
from tuneforge.data.shapes import TRAINABLE, RowShape

TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
RESULTS = [{"object_id": 1, "rank": 0.5}, {"object_id": 2}]


def one(folder: Path, row: dict[str, Any]) -> ParsedRow:
    """Returns what is read of one row."""
    [parsed] = read(folder, {"a.jsonl": json.dumps(row).encode()})
    return parsed


@pytest.mark.parametrize(
    ("row", "shape", "content"),
    [
        ({"messages": TURNS}, "MESSAGES", {"messages": TURNS}),
        ({"messages": TURNS, "tools": [TOOL["function"]]}, "MESSAGES", {"messages": TURNS, "tools": [TOOL]}),
        ({"prompt": "", "completion": "b"}, "PROMPT_COMPLETION", {"prompt": "", "completion": "b"}),
        ({"prompt": "a", "response": "b"}, "PROMPT_COMPLETION", {"prompt": "a", "completion": "b"}),
        ({"instruction": "a", "input": "", "output": "b"}, "INSTRUCTION", {"instruction": "a", "output": "b"}),
        (
            {"instruction": "a", "context": "c", "response": "b"},
            "INSTRUCTION",
            {"instruction": "a", "input": "c", "output": "b"},
        ),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
            "SHAREGPT",
            {"messages": TURNS},
        ),
        (
            {"conversation": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "s"},
            "SHAREGPT",
            {"messages": [{"role": "system", "content": "s"}, *TURNS]},
        ),
        ({"text": "a", "score": 1}, "TEXT", {"text": "a"}),
        ({"page_content": "a", "url": "u"}, "TEXT", {"text": "a"}),
        (
            {"prompt": "p", "chosen": "a", "rejected": "b"},
            "PREFERENCE",
            {"prompt": "p", "chosen": "a", "rejected": "b"},
        ),
        (
            {"prompt": "a", "chosen": TURNS, "rejected": [TURNS[0], {"role": "assistant", "content": "c"}]},
            "PREFERENCE",
            {"prompt": [TURNS[0]], "chosen": [TURNS[1]], "rejected": [{"role": "assistant", "content": "c"}]},
        ),
        (
            {"chosen": TURNS, "rejected": [TURNS[0], {"role": "assistant", "content": "c"}]},
            "PREFERENCE",
            {"prompt": [TURNS[0]], "chosen": [TURNS[1]], "rejected": [{"role": "assistant", "content": "c"}]},
        ),
        ({"text": "a", "label": 3}, "TEXT_LABEL", {"text": "a", "label": 3}),
        ({"sentence": "a", "category": "x"}, "TEXT_LABEL", {"text": "a", "label": "x"}),
    ],
)
def test_shapes_are_recognised(tmp_path: Path, row: dict[str, Any], shape: str, content: dict[str, Any]) -> None:
    """The shape is stated, and the content is what it means, written in one way."""
    parsed = one(tmp_path, row)
    assert (parsed.shape, parsed.content) == (shape, content)


def test_synonyms_and_columns_that_are_not_read_are_said_once(tmp_path: Path) -> None:
    """What was read under another name, or not at all, is told with the first such row."""
    row = json.dumps({"prompt": "a", "response": "b", "note": "c"}).encode() + b"\n"
    rows = read(tmp_path, {"a.jsonl": row * 3})
    assert remarks(rows) == ["COLUMN_RENAMED", "COLUMNS_IGNORED"]
    assert len({parsed.row_id for parsed in rows}) == 1


@pytest.mark.parametrize(
    ("row", "code", "words"),
    [
        ({"question": "q", "answer": "a"}, "MISSING_COLUMN", "`answer`, `question`"),
        ({"instruction": "a"}, "MISSING_COLUMN", "`output` is missing"),
        ({"image": "a.png"}, "MISSING_COLUMN", "`label` is missing"),
        ({"search_query": "a", "search_results": []}, "MISSING_COLUMN", "`session_id` is missing"),
        ({"messages": TURNS, "prompt": "a", "completion": "b"}, "AMBIGUOUS_COLUMNS", "several shapes"),
        ({"context": "only"}, "MISSING_COLUMN", "no known shape"),
        ({"chosen": "a", "rejected": "b"}, "MISSING_COLUMN", "`prompt` is missing"),
        ({"prompt": "p", "chosen": TURNS, "rejected": "b"}, "TYPE_MISMATCH", "one kind"),
        ({"messages": TURNS, "tools": [{"x": 1}]}, "BAD_CONVERSATION", "no tool"),
        ({"conversations": [{"from": "alien", "value": "a"}]}, "BAD_CONVERSATION", '"alien"'),
        ({"conversations": [{"from": "gpt", "value": "a", "weight": 0}]}, "BAD_CONVERSATION", "`weight` is not read"),
    ],
)
def test_what_is_nearly_a_shape_is_told_what_it_lacks(
    tmp_path: Path, row: dict[str, Any], code: str, words: str
) -> None:
    """The sentence names the column or the place, and which columns there are."""
    [problem] = one(tmp_path, row).problems
    assert problem.code == code
    assert words in problem.message


def test_tool_calls_become_turns(tmp_path: Path) -> None:
    """Calls, results and tools reach the row that is written by the chat template; arguments are written in one way."""
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"b": 2, "a": 1}'}}
    turns = [
        {"role": "user", "content": "1 + 2?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
        {"role": "assistant", "content": "3."},
    ]
    row = to_row(one(tmp_path, {"messages": turns, "tools": json.dumps([TOOL])}))
    assert row.turns[1].tool_calls == (ToolCall(name="add", arguments='{"a":1,"b":2}', id="c1"),)
    assert (row.turns[2].role, row.turns[2].tool_call_id) == ("tool", "c1")
    assert [tool["function"]["name"] for tool in row.tools] == ["add"]
    sharegpt = [
        {"from": "human", "value": "1 + 2?"},
        {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1, "b": 2}}'},
        {"from": "observation", "value": "3"},
        {"from": "gpt", "value": "3."},
    ]
    same = to_row(one(tmp_path, {"conversations": sharegpt}))
    assert [turn.role for turn in same.turns] == [turn.role for turn in row.turns]
    assert same.turns[1].tool_calls[0].arguments == row.turns[1].tool_calls[0].arguments


def test_click_sessions_are_read_in_both_spellings(tmp_path: Path) -> None:
    """Ids become texts, an event's type is a click, and a session without events is irrelevant."""
    session = {"session_id": 7, "search_query": "cats", "search_results": RESULTS, "events": [{"object_id": 1}]}
    recorded = one(tmp_path, session | {"is_irrelevant": True, "created_at": 1700000000}).content
    assert recorded is not None
    assert recorded["search_results"] == [{"object_id": "1", "rank": 0.5}, {"object_id": "2", "rank": None}]
    assert recorded["events"] == [{"object_id": "1", "event_type": "click"}]
    assert (recorded["session_id"], recorded["is_irrelevant"]) == ("7", False)
    ranked = {"query": "cats", "results": [1, 2], "ranks": {"1": 0.5, "2": None}, "events": [1]}
    prepared = one(tmp_path, ranked | {"session_id": "7", "timestamp": 1700000000})
    assert prepared.content == recorded
    lonely = one(tmp_path, {**session, "events": []}).content
    assert lonely is not None
    assert lonely["is_irrelevant"] is True


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ranks": {"1": 0.5}}, "1 ranks for 2 results"),
        ({"ranks": {"1": 0.5, "3": 0.1}}, "'2' has no rank"),
        ({"events": [9]}, "'9' was not among the results"),
        ({"timestamp": -1}, "no time"),
        ({"query": ""}, "no query"),
        ({"ranks": {"1": "x", "2": None}}, "not a number"),
        ({"results": [1, 1], "ranks": {"1": 0.5, "2": None}}, "twice"),
        ({"event_types": ["click", "view"]}, "2 event types for 1 events"),
    ],
)
def test_bad_sessions_are_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    """Ranks that do not fit the results, events about other objects, impossible times."""
    row = {"query": "cats", "results": [1, 2], "ranks": {"1": 0.5, "2": None}, "events": [1]} | change
    parsed = one(tmp_path, row)
    assert errors([parsed])[0][0] in {"BAD_SESSION", "TYPE_MISMATCH"}
    assert words in parsed.problems[0].message


def test_rows_of_one_data_set_are_alike(tmp_path: Path) -> None:
    """Another shape, or a label of another kind, is an error in its row; the others are taken."""
    lines = [{"text": "a", "label": 1}, {"text": "b", "label": "x"}, {"text": "c"}, {"text": "d", "label": 2}]
    rows = read(tmp_path, {"a.jsonl": "".join(json.dumps(line) + "\n" for line in lines).encode()})
    assert errors(rows) == [("TYPE_MISMATCH", 2), ("MIXED_SHAPES", 3)]
    assert len(contents(rows)) == 2


def test_only_what_a_language_model_learns_becomes_a_row(tmp_path: Path) -> None:
    """Preferences, labels and sessions are refused by name instead of being learned as something else."""
    rows: dict[RowShape, dict[str, Any]] = {
        RowShape.PREFERENCE: {"prompt": "p", "chosen": "a", "rejected": "b"},
        RowShape.TEXT_LABEL: {"text": "a", "label": "x"},
        RowShape.CLICK_SESSION: {"session_id": 1, "search_query": "a", "search_results": RESULTS},
    }
    for shape, row in rows.items():
        assert shape not in TRAINABLE
        with pytest.raises(MalformedRow, match=shape):
            to_row(one(tmp_path, row))
    text = to_row(one(tmp_path, {"text": "all of it"}))
    assert (text.prompt, text.completion, text.is_chat) == ("", "all of it", False)
    system = to_row(one(tmp_path, {"instruction": "a", "output": "b", "system": "s"}))
    assert [turn.role for turn in system.turns] == ["system", "user", "assistant"]
