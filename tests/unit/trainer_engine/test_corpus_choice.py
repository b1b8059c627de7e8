"""Which rows a run takes: the side of a divided version that it asks for, and only shapes that it can learn."""

import json
from functools import partial
from pathlib import Path

import pytest

from services.trainer.engine.corpus import Corpus, read_corpus
from services.trainer.engine.training_task import ALL_ROWS, RowChoice, TrainingFault
from tests.unit.data.reading import parquet, write
from tuneforge.data.masks import EncodedRow
from tuneforge.data.split import Side, Split
from tuneforge.errors import Reason

ROWS = [{"prompt": f"p{number}", "completion": "c"} for number in range(60)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def taken(paths: list[Path], choice: RowChoice = ALL_ROWS) -> Corpus:
    """Reads files with any encoding."""
    one_label = EncodedRow(ids=(1, 2), supervised=(False, True))
    return read_corpus(paths, partial(map, lambda _row: one_label), choice=choice, check_stop=lambda: None)


def test_each_side_is_taken_once(tmp_path: Path) -> None:
    """Training and validation rows are apart and together all rows, in whatever format they are."""
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    files = write(tmp_path, {"a.jsonl": LINES, "b.parquet": parquet(columns)})
    split = Split(validation_ratio=0.3, seed=4)
    found = {}
    for name, path in files.items():
        for side in (Side.TRAIN, Side.VALIDATION):
            choice = RowChoice(folder=tmp_path, split=split, side=side)
            found[name, side] = {example.id for example in taken([path], choice).examples}
    assert found["a.jsonl", Side.TRAIN] | found["a.jsonl", Side.VALIDATION] == {
        example.id for example in taken([files["a.jsonl"]]).examples
    }
    assert not found["a.jsonl", Side.TRAIN] & found["a.jsonl", Side.VALIDATION]
    for side in (Side.TRAIN, Side.VALIDATION):
        assert found["a.jsonl", side] == found["b.parquet", side]
        assert found["a.jsonl", side]


def test_a_share_is_the_same_in_whatever_order_rows_stand(tmp_path: Path) -> None:
    """A smaller share lies within a larger one, another seed takes other rows, and the order of rows has no say."""
    lines = LINES.splitlines(keepends=True)
    files = write(tmp_path, {"a.jsonl": LINES, "b.jsonl": b"".join(reversed(lines))})

    def ids(name: str, share: float, seed: int = 0) -> set[str]:
        return {each.id for each in taken([files[name]], RowChoice(share=share, seed=seed)).examples}

    half, fifth = ids("a.jsonl", 0.5), ids("a.jsonl", 0.2)
    assert 0 < len(fifth) < len(half) < 60
    assert fifth < half == ids("b.jsonl", 0.5)
    assert ids("a.jsonl", 0.5, seed=1) != half
    assert len(ids("a.jsonl", 1.0)) == 60


def test_files_divide_by_their_paths_in_the_data_set(tmp_path: Path) -> None:
    """The folder that the files lie in on this machine has no say, whatever it is called."""
    folder = tmp_path / "test"
    files = write(folder, {"train.jsonl": LINES, "validation.jsonl": LINES[:30]})
    paths = list(files.values())
    whole = LINES.splitlines(keepends=True)[0]
    files["validation.jsonl"].write_bytes(whole)
    sides = [
        len(taken(paths, RowChoice(folder=folder, split=Split(), side=side)).examples)
        for side in (Side.TRAIN, Side.VALIDATION)
    ]
    assert sides == [60, 1]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"text": "t", "label": "l"},
        {"session_id": 1, "search_query": "q", "search_results": [{"object_id": 1}, {"object_id": 2}]},
    ],
)
def test_other_shapes_are_never_learned_as_something_else(tmp_path: Path, row: dict[str, object]) -> None:
    """A run on rows that it cannot learn ends with their shape's name and what it takes."""
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(TrainingFault, match="cannot be learned") as caught:
        taken([path])
    assert caught.value.reason is Reason.INVALID_DATA
    assert "MESSAGES" in caught.value.cure


def test_a_malformed_row_of_the_other_side_ends_the_run_too(tmp_path: Path) -> None:
    """What is wrong with a version is told whichever side is read."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(LINES + b"{broken\n")
    for side in (Side.TRAIN, Side.VALIDATION):
        with pytest.raises(TrainingFault, match="line 61"):
            taken([path], RowChoice(folder=tmp_path, split=Split(validation_ratio=0.2), side=side))
