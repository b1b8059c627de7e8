"""Rows are read one by one, and every fault gets a line, a place, a sentence and a cure."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneforge.data.formats.content import decoded
from tuneforge.data.formats.strict_json import parse_object
from tuneforge.data.problems import RowFault
from tuneforge.data.rows import MAX_LINE_BYTES, MalformedRow, RowShape, check_file, read_rows
from tuneforge.data.shapes import recognise

CHAT = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
PLAIN = b'{"prompt": "a", "completion": "b"}\n'


def _write(folder: Path, content: bytes) -> Path:
    path = folder / "rows.jsonl"
    path.write_bytes(content)
    return path


def test_three_shapes_are_read(tmp_path: Path) -> None:
    """Each shape gives its rows, with the line they stand in; an instruction becomes a conversation."""
    assert next(read_rows(_write(tmp_path, CHAT))).turns[1].content == "b"
    plain = next(read_rows(_write(tmp_path, b"\n" + PLAIN)))
    assert (plain.line, plain.prompt, plain.completion, plain.shape) == (2, "a", "b", RowShape.PROMPT_COMPLETION)
    content = (
        b'{"instruction": "Add", "input": "1 2", "output": "3"}\n{"instruction": "Hi", "input": null, "output": "3"}'
    )
    first, second = read_rows(_write(tmp_path, content))
    assert [(turn.role, turn.content) for turn in first.turns] == [("user", "Add\n\n1 2"), ("assistant", "3")]
    assert second.turns[0].content == "Hi"


def test_equal_rows_have_equal_ids(tmp_path: Path) -> None:
    """A row's id comes from its content alone."""
    first, second, third = read_rows(_write(tmp_path, PLAIN + PLAIN.strip() + b"  \r\n" + PLAIN.replace(b"b", b"c")))
    assert first.id == second.id != third.id


@pytest.mark.parametrize(
    ("line", "field", "words"),
    [
        (b'{"messages": [\n', "", "not JSON"),
        (b'{"prompt": "\xff", "completion": "b"}\n', "", "0xff"),
        (b"[1]\n", "", "a list"),
        (b'{"text": "a"}\n', "", "TEXT"),
        (b'{"question": "a", "answer": "b"}\n', "", "`answer`, `question`"),
        (b'{"message": []}\n', "message", "`messages` is"),
        (b'{"prompt": "a", "answer": "b"}\n', "completion", "missing"),
        (b'{"prompt": "a", "completion": "b", "messages": []}\n', "", "several shapes"),
        (b'{"prompt": "a", "prompt": "b", "completion": "c"}\n', "prompt", "twice"),
        (b'{"prompt": "a", "completion": " \\n"}\n', "completion", "empty"),
        (b'{"prompt": 3, "completion": "b"}\n', "prompt", "a number"),
        (b'{"prompt": "\\ud83d", "completion": "b"}\n', "prompt", "surrogate"),
        (b'{"prompt": "a", "completion": "b", "score": NaN}\n', "", "NaN"),
        (b'{"prompt": "a", "completion": ' + b"[" * 200_000 + b"\n", "", "not JSON that can be read"),
        (b'{"messages": {}}\n', "messages", "an object"),
        (b'{"messages": []}\n', "messages", "no turn"),
        (b'{"messages": ["hi"]}\n', "messages[0]", "a text"),
        (b'{"messages": [{"role": "user"}]}\n', "messages[0].content", "missing"),
        (b'{"messages": [{"from": "human", "value": "a"}]}\n', "messages[0].role", "missing"),
        (b'{"messages": [{"role": "bot", "content": "a"}]}\n', "messages[0].role", '"bot"'),
        (b'{"messages": [{"role": "user", "content": [1]}]}\n', "messages[0].content", "a list"),
        (b'{"messages": [{"role": "user", "content": "a", "name": "b"}]}\n', "messages[0].name", "not read"),
        (b'{"messages": [{"role": "user", "content": "a"}]}\n', "messages", "the user's"),
        (b'{"messages": [{"role": "assistant", "content": ""}]}\n', "messages[0].content", "empty"),
        (
            b'{"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "s"},'
            b' {"role": "assistant", "content": "b"}]}\n',
            "messages[1].role",
            "place 2",
        ),
        (b'{"instruction": "a", "output": "b", "input": 3}\n', "input", "a number"),
    ],
)
def test_each_fault_is_named(tmp_path: Path, line: bytes, field: str, words: str) -> None:
    """A malformed row among good ones is reported with its line, its place, what is wrong and a cure."""
    report = check_file(_write(tmp_path, PLAIN + line + PLAIN))
    assert (report.rows, report.num_problems) == (2, 1)
    [problem] = report.problems
    assert (problem.line, problem.field) == (2, field)
    assert words in problem.message
    assert problem.cure.endswith(".")
    with pytest.raises(MalformedRow, match="line 2"):
        list(read_rows(tmp_path / "rows.jsonl"))


@pytest.mark.parametrize("cut", range(2, len(PLAIN) - 1, 7))
def test_a_cut_off_file_is_called_cut_off(tmp_path: Path, cut: int) -> None:
    """A file that ends within a row is told apart from a row that is wrong."""
    [problem] = check_file(_write(tmp_path, PLAIN + PLAIN[:cut])).problems
    assert "ends in the middle" in problem.message


def test_mixed_shapes_are_refused(tmp_path: Path) -> None:
    """Rows of another shape than the first are problems, in the check and when read."""
    path = _write(tmp_path, CHAT + PLAIN + CHAT)
    report = check_file(path)
    assert (report.shape, report.rows) == (RowShape.MESSAGES, 2)
    assert report.problems[0].line == 2
    with pytest.raises(MalformedRow, match="PROMPT_COMPLETION"):
        list(read_rows(path))


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file without a row is a problem of the file."""
    [problem] = check_file(_write(tmp_path, content)).problems
    assert problem.line == 0
    assert str(problem).startswith("the file: There is no row")


def test_problems_are_counted_beyond_the_limit(tmp_path: Path) -> None:
    """Only the first problems are listed, all are counted."""
    report = check_file(_write(tmp_path, b"{}\n" * 50), limit=3)
    assert (len(report.problems), report.num_problems, report.shape) == (3, 50, None)


def test_a_line_without_end_is_not_held(tmp_path: Path) -> None:
    """A line above the limit is refused and the rows after it are read."""
    huge = b'{"prompt": "' + b"a" * (MAX_LINE_BYTES + 10) + b'", "completion": "b"}\n'
    report = check_file(_write(tmp_path, PLAIN + huge + PLAIN))
    assert report.rows == 2
    assert (report.problems[0].line, report.problems[0].message) == (2, "The line is longer than 4 MiB.")


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    """Some editors begin a file with a byte order mark; it is no part of the first row."""
    assert check_file(_write(tmp_path, b"\xef\xbb\xbf" + PLAIN)).rows == 1


@given(st.binary(max_size=200))
def test_no_line_breaks_the_reader(line: bytes) -> None:
    """Whatever the bytes are, the answer is a row or a named fault."""
    with contextlib.suppress(RowFault):
        row = parse_object(decoded(line))
        recognise(tuple(row)).read(row)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["messages", "role", "content", "prompt", "completion", "instruction", "output", "input"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["messages", "prompt", "completion", "instruction", "output"]), _JSON))
def test_no_object_breaks_the_reader(row: dict[str, object]) -> None:
    """Whatever stands in the known columns, the answer is a row or a named fault."""
    with contextlib.suppress(RowFault):
        parsed = parse_object(json.dumps(row))
        recognise(tuple(parsed)).read(parsed)
