"""Reference cases of data sets: 003-07 to 003-11, 003-33, 000-13, and the sessions that 004 learns from."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.event_loop import on_loop
from tests.support.registry import refused, running_registry
from tests.support.tiny_model import make_tiny_model
from tests.unit.data.reading import contents, errors, image, read
from tuneforge.data.formats import DataFormat
from tuneforge.data.locations import LocationKind, locate
from tuneforge.data.masks import encode
from tuneforge.data.rendering import ChatFormat
from tuneforge.data.rows import Row, read_rows
from tuneforge.data.vocabulary import load_tokenizer
from tuneforge.errors import Reason
from tuneforge.v1 import datasets_pb2 as pb

ROWS = [
    {"instruction": "What is AI?", "output": "AI is artificial intelligence."},
    {"instruction": "Explain ML.", "output": "ML is machine learning."},
    {
        "instruction": "What is deep learning?",
        "input": "Context about neural networks",
        "output": "Deep learning is a subset of ML...",
    },
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
CSV = b'instruction,output\n"What is AI?","AI is artificial intelligence."\n"Explain ML.","ML is machine learning."\n'


def learned(folder: Path, row: Row) -> tuple[str, str]:
    """Returns a row as the model reads it, and the part of it that is learned."""
    model = make_tiny_model(folder / "model")
    tokenizer = load_tokenizer(model)
    encoded = encode(row, tokenizer, ChatFormat.load(model, tokenizer), 512)
    assert encoded is not None
    marked = [token for token, is_learned in zip(encoded.ids, encoded.supervised, strict=True) if is_learned]
    whole = tokenizer.decode(list(encoded.ids), skip_special_tokens=False)
    return whole, tokenizer.decode(marked, skip_special_tokens=False)


@pytest.mark.parametrize("number", [0, 2], ids=["003-07-without-input", "003-07-with-input"])
def test_instructions_are_learned(tmp_path: Path, number: int) -> None:
    """Loss on the answer and its end only; an input that is missing leaves no trace."""
    (tmp_path / "rows.jsonl").write_bytes(LINES)
    rows = list(read_rows(tmp_path / "rows.jsonl"))
    assert len(rows) == 3
    whole, target = learned(tmp_path, rows[number])
    assert target == ROWS[number]["output"] + "<|im_end|>"
    assert "None" not in whole
    assert ("Context about neural networks" in whole) == ("input" in ROWS[number])


@pytest.mark.parametrize("case", ["003-08"])
def test_csv_gives_the_same_rows(tmp_path: Path, case: str) -> None:
    """A table with a header and quoted cells has the rows of the JSONL file."""
    table, lines = read(tmp_path, {"rows.csv": CSV}), read(tmp_path / "b", {"rows.jsonl": LINES})
    assert errors(table) == []
    assert contents(table) == contents(lines)[:2]
    assert [row.row_id for row in table] == [row.row_id for row in lines[:2]]


@pytest.mark.parametrize(
    ("value", "kind", "form"),
    [
        pytest.param("templates/example_dataset.jsonl", LocationKind.FILE, DataFormat.JSONL, id="003-10-jsonl"),
        pytest.param("rows.csv", LocationKind.FILE, DataFormat.CSV, id="003-10-csv"),
        pytest.param("rows.dat", LocationKind.FILE, DataFormat.JSONL, id="003-10-other-suffix"),
        pytest.param("hf://owner/name", LocationKind.HUB, None, id="003-10-hf"),
        pytest.param("owner/name", LocationKind.HUB, None, id="003-10-no-such-path"),
        pytest.param("dataset/name", LocationKind.HUB, None, id="003-09"),
        pytest.param("missing.jsonl", None, None, id="003-10-missing"),
        pytest.param("templates/missing.jsonl", None, None, id="003-10-missing-below"),
    ],
)
def test_places_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, kind: LocationKind | None, form: DataFormat | None
) -> None:
    """A path that is there, a hub id, or nothing: then it is said that there is no such file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/example_dataset.jsonl").write_bytes(LINES)
    (tmp_path / "rows.csv").write_bytes(CSV)
    (tmp_path / "rows.dat").write_bytes(LINES)
    if kind is None:
        with pytest.raises(FileNotFoundError, match="no file"):
            locate(value)
        return
    place = locate(value)
    assert (place.kind, place.format) == (kind, form)
    assert kind is not LocationKind.HUB or place.uri.startswith("hf://")


@pytest.mark.parametrize("case", ["003-33"])
def test_a_config_maps_key_is_a_place(case: str) -> None:
    """Map and key are told apart; what is neither is refused with the form."""
    place = locate("configmap:finetuning-templates:example_dataset.jsonl")
    assert (place.kind, place.config_map, place.key) == (
        LocationKind.CONFIG_MAP,
        "finetuning-templates",
        "example_dataset.jsonl",
    )
    for wrong in ("configmap:", "configmap:name", "configmap:Name:key", "configmap:a:b/../c"):
        with pytest.raises(ValueError, match="configmap:<name>:<key>"):
            locate(wrong)


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        pytest.param(b'{"question": "q", "answer": "a"}\n', "MISSING_COLUMN", "`answer`, `question`", id="003-11"),
        pytest.param(b"", "DATASET_EMPTY", "no row", id="003-11-empty"),
        pytest.param(LINES + b"{bad\n", "MALFORMED_JSON", "not JSON", id="003-11-bad-line"),
    ],
)
def test_wrong_shapes_are_refused(tmp_path: Path, content: bytes, code: str, words: str) -> None:
    """The registry names what is needed and the columns that there are, or the line."""

    @on_loop
    async def check() -> None:
        async with running_registry(tmp_path) as registry:
            dataset = await registry.dataset("rows")
            manifest = await registry.put_files({"rows.jsonl": content})
            request = pb.CreateDatasetVersionRequest(parent=dataset, manifest=manifest)
            error = await refused(registry.stub.CreateDatasetVersion(request), Reason.INVALID_DATA)
        [violation] = error.fields
        assert violation.reason == code
        assert words in violation.description
        if code == "MISSING_COLUMN":
            assert "`instruction` and `output` (perhaps `input`), or `text`" in violation.description
        if code == "MALFORMED_JSON":
            assert violation.field == "rows.jsonl:4"

    check()


@pytest.mark.parametrize("case", ["000-13"])
def test_a_table_of_images_and_labels(tmp_path: Path, case: str) -> None:
    """A CSV with the columns image_path and label, beside its images."""
    table = b"image_path,label\nimages/1.png,cat\nimages/2.png,dog\n"
    rows = read(tmp_path, {"rows.csv": table, "images/1.png": image(), "images/2.png": image(color="blue")})
    assert errors(rows) == []
    assert [content["label"] for content in contents(rows)] == ["cat", "dog"]


SESSION: dict[str, Any] = {
    "session_id": "s1",
    "search_query": {"text": "red shoes"},
    "created_at": 1700000000,
    "search_results": [{"object_id": 11, "rank": 0.9, "meta": {"price": 1}}, {"object_id": "12"}],
    "user_id": "u",
}


@pytest.mark.parametrize(
    ("row", "is_irrelevant", "clicked"),
    [
        pytest.param(SESSION | {"events": [{"object_id": "11", "event_id": "e"}]}, False, ["11"], id="004-session"),
        pytest.param(SESSION, True, [], id="004-session-without-click"),
        pytest.param(
            {"query": "red shoes", "results": [11, 12], "ranks": {"11": 0.9, "12": None}, "events": [12]},
            False,
            ["12"],
            id="004-input",
        ),
    ],
)
def test_click_sessions_are_data(tmp_path: Path, row: dict[str, Any], is_irrelevant: bool, clicked: list[str]) -> None:
    """Sessions as they were recorded, and inputs as training takes them; who clicked nothing is irrelevant."""
    [content] = contents(read(tmp_path, {"rows.jsonl": json.dumps(row).encode()}))
    assert content["is_irrelevant"] is is_irrelevant
    assert [event["object_id"] for event in content["events"]] == clicked
    assert {event["event_type"] for event in content["events"]} <= {"click"}
    assert [result["object_id"] for result in content["search_results"]] == ["11", "12"]
