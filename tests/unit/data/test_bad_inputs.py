"""The table of bad data files: each is answered with its code and its line, and what is fine is taken.

The numbers are those of the rows in the table of bad inputs (B22 to B48).
"""

import gzip
import io
import json
import os
import threading
from pathlib import Path

import pytest
import zstandard

from tests.unit.data.reading import PA, PQ, contents, errors, parquet, read, remarks, write
from tuneforge.data.examination import examine
from tuneforge.data.formats import DataFile, Limits, open_rows
from tuneforge.data.split import Split

GOOD = b'{"prompt": "a", "completion": "b"}\n'
HEAD = b"prompt,completion\n"
TABLE = parquet({"prompt": ["a"] * 3, "completion": ["b", "c", "d"]})


def chat(*turns: tuple[str, str]) -> bytes:
    """Returns a row of turns."""
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in turns]}).encode() + b"\n"


def called(*, with_result: bool) -> bytes:
    """Returns a row in which the assistant calls a tool and goes on, with or without the call's result."""
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    result = [{"role": "tool", "content": "1"}] if with_result else []
    turns = [{"role": "user", "content": "a"}, call, *result, {"role": "assistant", "content": "b"}]
    return json.dumps({"messages": turns}).encode() + b"\n"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        pytest.param("a.jsonl", b"", [("DATASET_EMPTY", 0)], id="B22-empty"),
        pytest.param("a.jsonl", b"\n\r\n \n", [("DATASET_EMPTY", 0)], id="B22-newlines"),
        pytest.param("a.csv", HEAD, [("DATASET_EMPTY", 0)], id="B22-header-only"),
        pytest.param("a.json", b" [ ]\n", [("DATASET_EMPTY", 0)], id="B22-empty-array"),
        pytest.param("a.jsonl", b"\xff\xfe" + GOOD.decode().encode("utf-16-le"), [("NOT_UTF8", 0)], id="B25-utf16-bom"),
        pytest.param("a.jsonl", GOOD.decode().encode("utf-16-be"), [("NOT_UTF8", 0)], id="B25-utf16-be"),
        pytest.param("a.csv", ("\ufeff" + HEAD.decode()).encode("utf-32"), [("NOT_UTF8", 0)], id="B25-utf32"),
        pytest.param("a.jsonl", GOOD + '{"prompt": "é"}'.encode("latin-1"), [("NOT_UTF8", 2)], id="B25-latin1"),
        pytest.param("a.jsonl", GOOD + GOOD.replace(b'"a', b'"\xc0\xaf'), [("NOT_UTF8", 2)], id="B26-overlong"),
        pytest.param("a.jsonl", GOOD.replace(b'"a', b'"\xed\xa0\x80'), [("NOT_UTF8", 1)], id="B26-surrogate-bytes"),
        pytest.param("a.jsonl", GOOD.replace(b'"a', b'"\\ud800'), [("NOT_UTF8", 1)], id="B26-surrogate-escape"),
        pytest.param("a.jsonl", GOOD + GOOD[:-9], [("TRUNCATED", 2)], id="B27-cut-line"),
        pytest.param("a.json", b"[" + GOOD + b"," + GOOD[:9], [("TRUNCATED", 2)], id="B27-cut-array"),
        pytest.param("a.jsonl", GOOD.strip() + b", " + GOOD, [("NOT_JSONL", 1)], id="B28-two-on-a-line"),
        pytest.param("a.json", b"[" + GOOD.strip() + b"] x", [("NOT_JSONL", 1)], id="B28-behind-the-array"),
        pytest.param("a.jsonl", b'{"Prompt": "a", "Completion": "b"}', [("MISSING_COLUMN", 1)], id="B29-case"),
        pytest.param("a.jsonl", b'{"prompt": "a"}', [("MISSING_COLUMN", 1)], id="B29-missing"),
        pytest.param("a.csv", b"a,b\n1,2\n", [("MISSING_COLUMN", 2)], id="B29-table"),
        pytest.param("a.jsonl", GOOD.replace(b'"a', b'"\0'), [("NUL_BYTE", 1)], id="B31-nul"),
        pytest.param("a.jsonl", GOOD.replace(b'"a', b'"\\u0000'), [("NUL_BYTE", 1)], id="B31-escaped-nul"),
        pytest.param("a.jsonl", GOOD.replace(b'"a"', b"1"), [("TYPE_MISMATCH", 1)], id="B32-number"),
        pytest.param("a.jsonl", GOOD + GOOD.replace(b'"a"', b"null"), [("TYPE_MISMATCH", 2)], id="B32-null"),
        pytest.param("a.jsonl", GOOD.replace(b'"a"', b"[1]"), [("TYPE_MISMATCH", 1)], id="B32-list"),
        pytest.param("a.csv", b"text,label\nx,nan\ny,\nz,1\n", [("BAD_LABEL", 2), ("BAD_LABEL", 3)], id="B33-texts"),
        pytest.param("a.jsonl", b'{"text": "x", "label": -1}', [("BAD_LABEL", 1)], id="B33-out-of-range"),
        pytest.param("a.jsonl", b'{"text": "x", "label": NaN}', [("MALFORMED_JSON", 1)], id="B33-json-nan"),
        pytest.param("a.parquet", parquet({"text": ["x"], "label": [float("nan")]}), [("BAD_LABEL", 1)], id="B33-nan"),
        pytest.param("a.csv", HEAD + b"a,b,c\nd\ne,f\n", [("RAGGED_ROW", 2), ("RAGGED_ROW", 3)], id="B35-ragged"),
        pytest.param("a.csv", HEAD + b'a,b\nc,"d\n\n\n', [("UNCLOSED_QUOTE", 3)], id="B35-unclosed"),
        pytest.param("a.csv", HEAD + b'a,"b"c\n', [("UNCLOSED_QUOTE", 2)], id="B35-behind-quote"),
        pytest.param("a.csv", b"prompt,prompt\na,b\n", [("DUPLICATE_COLUMN", 0)], id="B35-header-twice"),
        pytest.param("a.jsonl", chat(("assistant", "a"), ("user", "b")), [("BAD_CONVERSATION", 1)], id="B39-order"),
        pytest.param("a.jsonl", chat(("assistant", "a")), [("BAD_CONVERSATION", 1)], id="B39-answer-to-nobody"),
        pytest.param("a.jsonl", chat(("user", "a"), ("user", "b")), [("BAD_CONVERSATION", 1)], id="B39-twice"),
        pytest.param("a.jsonl", chat(("user", "a"), ("assistant", "")), [("EMPTY_TARGET", 1)], id="B39-empty"),
        pytest.param("a.jsonl", chat(("system", "a")), [("BAD_CONVERSATION", 1)], id="B39-only-system"),
        pytest.param("a.jsonl", called(with_result=False), [("BAD_CONVERSATION", 1)], id="B39-call-without-result"),
        pytest.param("a.jsonl", chat(("robot", "a"), ("assistant", "b")), [("BAD_CONVERSATION", 1)], id="B39-role"),
        pytest.param(
            "a.jsonl", b'{"prompt": "p", "chosen": "x", "rejected": "x"}', [("EQUAL_PAIR", 1)], id="B40-equal"
        ),
        pytest.param("a.jsonl", b'{"prompt": "p", "chosen": "x"}', [("MISSING_COLUMN", 1)], id="B40-one-missing"),
        pytest.param("a.jsonl.gz", gzip.compress(GOOD * 9)[:-12], [("CORRUPT_ARCHIVE", 0)], id="B43-cut-gzip"),
        pytest.param("a.jsonl.zst", zstandard.compress(GOOD * 9)[:-3], [("CORRUPT_ARCHIVE", 0)], id="B43-cut-zstd"),
        pytest.param("a.jsonl.gz", gzip.compress(GOOD)[:-8] + b"x" * 8, [("CORRUPT_ARCHIVE", 0)], id="B43-crc"),
        pytest.param("a.jsonl.gz", gzip.compress(gzip.compress(GOOD)), [("CORRUPT_ARCHIVE", 0)], id="B43-nested"),
        pytest.param("a.jsonl.gz", GOOD, [("CORRUPT_ARCHIVE", 0)], id="B43-no-gzip"),
        pytest.param("a.jsonl", gzip.compress(GOOD), [("CORRUPT_ARCHIVE", 0)], id="B43-unnamed-gzip"),
        pytest.param("a.jsonl", b"PK\x03\x04" + b"x" * 99, [("CORRUPT_ARCHIVE", 0)], id="B43-zip"),
        pytest.param("a.parquet", TABLE[:-30] + TABLE[-8:], [("CORRUPT_PARQUET", 0)], id="B44-footer"),
        pytest.param("a.parquet", TABLE[:-8] + b"\xff\xff\xff\x7fPAR1", [("CORRUPT_PARQUET", 0)], id="B44-length"),
        pytest.param("a.parquet", b"PAR1" + b"\0" * 40 + b"PARE", [("CORRUPT_PARQUET", 0)], id="B44-encrypted"),
        pytest.param("a.parquet", b"", [("CORRUPT_PARQUET", 0)], id="B44-empty"),
        pytest.param("a.arrow", b"ARROW1\0\0" + b"x" * 60, [("CORRUPT_PARQUET", 0)], id="B44-arrow"),
    ],
)
def test_bad_rows_are_told_with_code_and_line(
    tmp_path: Path, name: str, content: bytes, expected: list[tuple[str, int]]
) -> None:
    """Each fault has its code and its place, a sentence, a cure, and an excerpt that fits on a line."""
    rows = read(tmp_path, {name: content})
    found = errors(rows)
    assert [code for code, _ in found] == [code for code, _ in expected]
    assert all(line == wanted for (_, line), (_, wanted) in zip(found, expected, strict=True) if wanted)
    for problem in (problem for row in rows for problem in row.problems):
        assert problem.file == name
        assert problem.message.endswith(".")
        assert problem.cure.endswith(".")
        assert len(problem.excerpt) <= 80
        assert problem.excerpt.isprintable()
        assert str(tmp_path) not in problem.message


@pytest.mark.parametrize(
    ("name", "content", "number", "said"),
    [
        pytest.param("a.jsonl", b"\xef\xbb\xbf" + GOOD, 1, ["BOM_REMOVED"], id="B23-jsonl"),
        pytest.param("a.csv", b"\xef\xbb\xbf" + HEAD + b"a,b\n", 1, ["BOM_REMOVED"], id="B23-csv"),
        pytest.param("a.txt", b"\xef\xbb\xbfone\ntwo\n", 2, ["FORMAT_CHOICE", "BOM_REMOVED"], id="B23-text"),
        pytest.param("a.jsonl", GOOD.strip() + b"\r\n" + GOOD.strip() + b"\r" + GOOD.strip(), 3, [], id="B24-ends"),
        pytest.param("a.csv", (HEAD + b'a,b\nc,"d\ne"\n').replace(b"\n", b"\r\n"), 2, [], id="B24-csv-crlf"),
        pytest.param("a.csv", (HEAD + b"a,b\nc,d").replace(b"\n", b"\r"), 2, [], id="B24-csv-cr"),
        pytest.param("a.json", b"[" + GOOD + b",\n" + GOOD + b"]", 2, [], id="B28-array"),
        pytest.param("a.jsonl", b'{\n "prompt": "a",\n "completion": "b"\n}\n' * 2, 2, [], id="B28-spread-out"),
        pytest.param("a.csv", HEAD + b'=cmd|"/C calc",b\n', 1, [], id="B36-formula"),
        pytest.param("a.csv", b'prompt;completion\n"a;b""c";d\n', 1, ["FORMAT_CHOICE"], id="B35-semicolon"),
        pytest.param("a.tsv", b"prompt\tcompletion\na, b\tc\n", 1, [], id="B35-tab"),
        pytest.param("a.jsonl", called(with_result=True), 1, [], id="B39-call-with-result"),
        pytest.param(
            "a.jsonl",
            GOOD.replace(b'"a', '"\u202ee\u0301\u0301\u200b\U000e0fff'.encode()),
            1,
            [],
            id="B42-unicode",
        ),
        pytest.param("a.jsonl", GOOD.replace(b'"a', b'"<|im_start|>'), 1, [], id="B41-control-token"),
        pytest.param("a.jsonl", GOOD, 1, [], id="B47-one-row"),
    ],
)
def test_what_is_unusual_and_fine_is_taken(
    tmp_path: Path, name: str, content: bytes, number: int, said: list[str]
) -> None:
    """No error, all rows, and what was done with them is said."""
    rows = read(tmp_path, {name: content})
    assert (errors(rows), len(contents(rows)), remarks(rows)) == ([], number, said)


def test_a_huge_line_is_passed_over(tmp_path: Path) -> None:
    """B30: the rows around a line above the limit are read; the limit holds for every format."""
    limits = Limits(row_bytes=1000)
    huge = b'{"prompt": "' + b"x" * 3_000_000 + b'", "completion": "b"}\n'
    rows = read(tmp_path, {"a.jsonl": GOOD + huge + GOOD}, limits)
    assert (errors(rows), len(contents(rows))) == ([("ROW_TOO_LARGE", 2)], 2)
    for name, content in {
        "a.json": b"[" + huge + b"]",
        "a.csv": HEAD + b'"' + b"x\n" * 2000 + b'",b\n',
        "a.txt": b"a\n\n" + b"x\n" * 2000 + b"\nb\n",
        "a.parquet": parquet({"prompt": ["x" * 3000], "completion": ["b"]}),
    }.items():
        assert [code for code, _ in errors(read(tmp_path / name[2:], {name: content}, limits))] == ["ROW_TOO_LARGE"]


def test_a_deep_row_and_many_columns_are_refused(tmp_path: Path) -> None:
    """S9: nesting and columns have limits; the rest of a row is no help against them."""
    deep = b'{"prompt": "a", "completion": "b", "x": ' + b"[" * 65 + b"]" * 65 + b"}\n"
    wide = json.dumps({"prompt": "a", "completion": "b", **{f"c{n}": 0 for n in range(1000)}}).encode()
    rows = read(tmp_path, {"a.jsonl": GOOD + deep + wide})
    assert errors(rows) == [("MALFORMED_JSON", 2), ("TOO_MANY_COLUMNS", 3)]


def test_duplicate_ids_and_rows_are_found(tmp_path: Path) -> None:
    """B34: an id that stands twice is an error, a row that stands twice a warning with its count."""
    rows = [{"id": n, "prompt": p, "completion": "c"} for n, p in ((1, "a"), (2, "b"), (1, "c"), (3, "a"), (4, "a"))]
    files = write(tmp_path, {"a.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode()})
    found = examine(files)
    assert [(each.code, each.line) for each in found.errors] == [("DUPLICATE_ID", 3)]
    assert found.counts["DUPLICATE_ROW"] == 2
    assert found.statistics.duplicates == 2


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_bomb_is_put_out(tmp_path: Path, suffix: str) -> None:
    """B43: content that is thousands of times the file's size is refused after a bounded part of it."""
    raw = b" " * 200_000_000
    packed = gzip.compress(raw, 9) if suffix == ".gz" else zstandard.compress(raw, 19)
    rows = read(tmp_path, {f"a.jsonl{suffix}": packed})
    assert errors(rows) == [("DECOMPRESSION_LIMIT", 0)]


def test_an_extension_type_is_refused(tmp_path: Path) -> None:
    """B44: a column whose type comes with code of its own is not read."""
    kind = PA.fixed_shape_tensor(PA.int32(), [2])
    storage = PA.array([[1, 2]], kind.storage_type)
    odd = PA.ExtensionArray.from_storage(kind, storage)
    target = io.BytesIO()
    PQ.write_table(PA.table({"prompt": ["a"], "completion": ["b"], "odd": odd}), target)
    rows = read(tmp_path, {"a.parquet": target.getvalue()})
    assert errors(rows) == [("CORRUPT_PARQUET", 0)]
    assert "`odd`" in rows[0].problems[0].message


def test_a_file_that_changes_is_told(tmp_path: Path) -> None:
    """B45: rows that were written while they were read are not taken for the file."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD * 200_000)
    rows = open_rows([DataFile("a.jsonl", path)])
    next(rows)
    with path.open("ab") as file:
        file.write(GOOD)
    assert errors(list(rows))[-1][0] == "DATASET_CHANGED"


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """B46: a folder, a pipe and a device are refused without waiting for them; so is a link that leads nowhere."""
    folder, pipe, link = tmp_path / "folder.jsonl", tmp_path / "pipe.jsonl", tmp_path / "link.jsonl"
    folder.mkdir()
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "nothing")
    found: list[tuple[str, int]] = []

    def look() -> None:
        for path in (folder, pipe, link, Path("/dev/zero")):
            found.extend(errors(list(open_rows([DataFile("a.jsonl", path)]))))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(timeout=200)
    assert found == [("NOT_REGULAR_FILE", 0)] * 4


def test_a_sparse_file_ends_at_its_first_line(tmp_path: Path) -> None:
    """B46: a terabyte of nothing is no text, which its first bytes tell."""
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.truncate(2**40)
    assert errors(list(open_rows([DataFile("a.jsonl", path)]))) == [("NUL_BYTE", 1)]


def test_a_split_that_leaves_a_side_empty_is_refused(tmp_path: Path) -> None:
    """B47: one row cannot be divided; the answer says so."""
    found = examine(write(tmp_path, {"a.jsonl": GOOD}), split=Split(validation_ratio=0.5))
    assert [each.code for each in found.errors] == ["TOO_FEW_SAMPLES"]
