"""The same rows come out of every format, with their places; folders are sorted out by their names."""

import gzip
import json
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.data.reading import PA, arrow_stream, contents, errors, image, parquet, read, remarks, write
from tuneforge.data.formats import DataFile, DataFormat, open_rows
from tuneforge.data.formats.layout import format_of, is_passed_over
from tuneforge.data.problems import RowFault

ROWS = [{"instruction": "What, now?", "output": 'It is "so"\nand so.'}, {"instruction": "ä", "output": "b"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}
CSV = 'instruction,output\n"What, now?","It is ""so""\nand so."\nä,b\n'.encode()


@pytest.mark.parametrize(
    ("name", "content", "places"),
    [
        ("a.jsonl", LINES, [1, 2]),
        ("a.ndjson", LINES, [1, 2]),
        ("a.json", json.dumps(ROWS, indent=1).encode(), [2, 6]),
        ("a.csv", CSV, [2, 4]),
        ("a.tsv", 'instruction\toutput\n"What, now?"\t"It is ""so""\nand so."\nä\tb'.encode(), [2, 4]),
        ("a.parquet", parquet(COLUMNS), [1, 2]),
        ("a.arrow", arrow_stream(COLUMNS), [1, 2]),
        ("a.jsonl.gz", gzip.compress(LINES, mtime=0), [1, 2]),
        ("a.csv.zst", zstandard.compress(CSV), [2, 4]),
        ("rows", LINES, [1, 2]),
        ("rows.dat", CSV, [2, 4]),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str, content: bytes, places: list[int]) -> None:
    """Content and ids are those of JSONL; the place is the line in which a row begins, or its number."""
    rows = read(tmp_path, {name: content})
    plain = read(tmp_path / "plain", {"a.jsonl": LINES})
    assert errors(rows) == []
    assert contents(rows) == ROWS
    assert [row.row_id for row in rows if row.content] == [row.row_id for row in plain]
    assert [row.line for row in rows if row.content] == places


def test_text_is_read_by_paragraph_or_by_line(tmp_path: Path) -> None:
    """Blank lines divide; without one, each line is a row. Which of the two it was is said."""
    by_paragraph = read(tmp_path, {"a.txt": b"one\ntwo\n\n\nthree"})
    assert [(row.line, row.content) for row in by_paragraph[1:]] == [(1, {"text": "one\ntwo"}), (5, {"text": "three"})]
    by_line = read(tmp_path, {"a.md": b"one\ntwo\n"})
    assert contents(by_line) == [{"text": "one"}, {"text": "two"}]
    assert "line" in by_line[0].problems[0].message
    assert "paragraph" in by_paragraph[0].problems[0].message


def test_images_have_the_label_of_their_folder(tmp_path: Path) -> None:
    """An image row holds its digest and size; the folder is the label, one for a part of the data is none."""
    files = {"train/cat/1.png": image(), "train/dog/2.png": image(5, 6), "test/cat/3.png": image(color="blue")}
    rows = read(tmp_path, {**files, "README.md": b"Pets."})
    found = {row.file: row for row in rows if row.content}
    assert {path: (row.content or {})["label"] for path, row in found.items()} == {
        "train/cat/1.png": "cat",
        "train/dog/2.png": "dog",
        "test/cat/3.png": "cat",
    }
    assert {path: row.part for path, row in found.items()}["test/cat/3.png"] == "test"
    facts = (found["train/dog/2.png"].content or {})["image"]
    assert (facts["width"], facts["height"], facts["media_type"], len(facts["sha256"])) == (5, 6, "image/png", 64)
    assert [code for code, _ in errors(read(tmp_path / "b", {"1.png": image(), "train/2.png": image()}))] == [
        "BAD_LABEL",
        "BAD_LABEL",
    ]
    broken = read(tmp_path / "c", {"cat/1.png": image()[:40]})
    assert [code for code, _ in errors(broken)] == ["BAD_IMAGE"]


def test_a_table_tells_the_labels_of_images(tmp_path: Path) -> None:
    """A cell names an image by its path, relative to the table; one that is not there is an error."""
    table = b"image_path,label\n1.png,cat\nmissing.png,dog\n"
    rows = read(tmp_path, {"set/labels.csv": table, "set/1.png": image()})
    [row] = [row for row in rows if row.content]
    direct = read(tmp_path / "b", {"cat/1.png": image()})
    assert row.row_id == direct[0].row_id
    assert errors(rows) == [("BAD_IMAGE", 3)]


def test_hub_folders_are_divided_by_their_names(tmp_path: Path) -> None:
    """Shards have the part that their names tell; without `train`, the first part is for training."""
    table = parquet(COLUMNS)
    files = {f"data/{part}-00000-of-00001.parquet": table for part in ("train", "validation", "test")}
    parts = [row.part for row in read(tmp_path, {**files, ".gitattributes": b"x", "dataset_infos.json": b"{}"})]
    assert parts.count("train") == parts.count("validation") == parts.count("test") == 2
    rows = read(tmp_path / "b", {"dev.jsonl": LINES, "test.jsonl": LINES})
    assert {row.file: row.part for row in rows} == {"dev.jsonl": "train", "test.jsonl": "test"}
    assert {row.part for row in read(tmp_path / "c", {"test.jsonl": LINES})} == {""}


def test_saved_hub_data_sets_are_read_as_their_state_says(tmp_path: Path) -> None:
    """Arrow files that `state.json` does not name are left overs; names of classes come from the metadata."""
    features = {"info": {"features": {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}}}}
    table = PA.table({"text": ["x", "y"], "label": [1, -1]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    path = tmp_path / "data-00000-of-00001.arrow"
    with PA.OSFile(str(path), "wb") as target, PA.ipc.new_stream(target, table.schema) as writer:
        writer.write_table(table)
    state = json.dumps({"_data_files": [{"filename": path.name}]}).encode()
    files = {**write(tmp_path, {"state.json": state, "cache-1.arrow": b"old"}), path.name: path}
    rows = list(open_rows(files))
    assert contents(rows) == [{"text": "x", "label": "good"}]
    assert errors(rows) == [("BAD_LABEL", 2)]
    assert remarks(rows) == ["FILE_PASSED_OVER", "FILE_PASSED_OVER"]


def test_nulls_of_a_column_type_are_left_out(tmp_path: Path) -> None:
    """Parquet gives every turn the members that any of them has; those that are null are not there."""
    call = [{"type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}]
    turns = [
        {"role": "user", "content": "a", "tool_calls": None},
        {"role": "assistant", "content": None, "tool_calls": call},
    ]
    rows = read(tmp_path, {"a.parquet": parquet({"messages": [turns]})})
    [content] = contents(rows)
    assert content["messages"][0] == {"role": "user", "content": "a"}
    assert content["messages"][1]["tool_calls"][0]["function"] == {"name": "f", "arguments": {"a": 1}}


@pytest.mark.parametrize("name", ["a.py", "a.pkl", "a.xlsx", "a.safetensors", "a.yaml"])
def test_what_is_no_format_of_rows_is_refused(tmp_path: Path, name: str) -> None:
    """Scripts, pickles and the like are never opened; what is read is said."""
    rows = read(tmp_path, {name: LINES, "b.jsonl": LINES})
    assert [code for code, _ in errors(rows)] == ["UNKNOWN_FORMAT"]
    assert "Parquet" in rows[0].problems[0].cure


def test_formats_are_told_by_suffix_or_beginning(tmp_path: Path) -> None:
    """A missing file is not found; a bracket at the beginning is JSON, all other text a table."""
    files = write(tmp_path, {"a.JSONL": LINES, "b": LINES, "c": CSV, "d.bin2": b"\0\1\2"})
    assert [format_of(files[name]) for name in ("a.JSONL", "b", "c")] == [
        DataFormat.JSONL,
        DataFormat.JSONL,
        DataFormat.CSV,
    ]
    for path in (files["d.bin2"], tmp_path / "missing.jsonl"):
        with pytest.raises(RowFault):
            format_of(path)
    assert [is_passed_over(path) for path in ("README.md", "a/.x", "state.json", "notes.md")] == [
        True,
        True,
        False,
        False,
    ]


def test_no_file_is_an_empty_data_set(tmp_path: Path) -> None:
    """Nothing at all, and nothing but companions, have no rows."""
    assert errors(list(open_rows({}))) == [("DATASET_EMPTY", 0)]
    assert errors(read(tmp_path, {"README.md": b"x"})) == [("DATASET_EMPTY", 0)]


def test_a_bad_line_of_a_table_is_a_bad_row(tmp_path: Path) -> None:
    """Bytes that are no text spoil their row, wherever in it they stand, and not those around it."""
    rows = read(tmp_path, {"a.csv": b'text,label\na,b\n"x\xff\ny",c\nd,\0e\nf,g\n'})
    assert errors(rows) == [("NOT_UTF8", 3), ("NUL_BYTE", 5)]
    assert contents(rows) == [{"text": "a", "label": "b"}, {"text": "f", "label": "g"}]


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from(["jsonl", "json", "csv", "tsv", "parquet", "arrow", "txt", "png", "jsonl.gz", "csv.zst", "x"]),
    st.sampled_from(
        [b"", b"[", b'{"text": "', b"text,label\n", b"PAR1", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"ARROW1\0\0"]
    ),
)
def test_no_bytes_break_a_reader(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str, head: bytes
) -> None:
    """Whatever a file holds, what comes out are rows and problems with a place, a sentence and a cure."""
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(head + content)
    for row in open_rows([DataFile(f"dir/a.{suffix}", path)]):
        assert (row.content is None) == (row.shape is None)
        assert row.content is not None or row.problems
        assert all(problem.code and problem.message and problem.cure for problem in row.problems)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries({"prompt": st.text(max_size=20), "completion": st.text(min_size=1, max_size=20)}),
        min_size=1,
        max_size=6,
    )
)
def test_csv_gives_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]) -> None:
    """What Python's own writer writes is read as it was, whatever is in the cells, and as Parquet and JSON give it."""
    import csv

    folder = tmp_path_factory.mktemp("rows")
    with (folder / "a.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["prompt", "completion"], quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "a.parquet").write_bytes(parquet({name: [row[name] for row in rows] for name in rows[0]}))
    found = {name: list(open_rows({name: folder / name})) for name in ("a.csv", "a.jsonl", "a.json", "a.parquet")}
    usable = {name: [row.content for row in each if row.is_usable] for name, each in found.items()}
    assert usable["a.csv"] == usable["a.jsonl"] == usable["a.json"] == usable["a.parquet"]
    if all(row["completion"].strip() and "\0" not in row["prompt"] + row["completion"] for row in rows):
        assert usable["a.jsonl"] == rows


TABLES = {
    "a.parquet": parquet({"text": ["a", "b"] * 50, "label": [1, 2] * 50}),
    "a.arrow": arrow_stream(
        {"messages": [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]] * 9}
    ),
}


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(sorted(TABLES)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
    st.floats(0, 1),
)
def test_damaged_tables_do_not_break_a_reader(
    tmp_path_factory: pytest.TempPathFactory, name: str, damage: list[tuple[float, int]], kept: float
) -> None:
    """Changed and missing bytes of a binary table give rows or problems, and never end the process."""
    content = bytearray(TABLES[name])
    for place, byte in damage:
        content[int(place * len(content))] = byte
    path = tmp_path_factory.mktemp("any") / name
    path.write_bytes(bytes(content[: int((0.5 + kept) * len(content))]))
    rows = list(open_rows({name: path}))
    assert rows
    assert all(row.content is not None or row.problems for row in rows)
