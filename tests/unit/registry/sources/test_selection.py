"""Which files of a place become those of a version."""

import pytest

from services.registry.sources.faults import Code, SourceFault
from services.registry.sources.selection import choose
from services.registry.sources.wanted import Entry, Wanted
from tuneforge.data.formats.card import part_of


def entries(*paths: str, size_bytes: int = 1) -> list[Entry]:
    """Returns files of a place."""
    return [Entry(path=path, key=path, size_bytes=size_bytes) for path in paths]


def chosen(wanted: Wanted, *paths: str) -> list[str]:
    """Returns what is taken of some files."""
    return [entry.path for entry in choose(entries(*paths), wanted)]


MODEL, DATA = Wanted(kind="model"), Wanted(kind="dataset")


def test_a_model_is_its_harmless_files_at_the_top() -> None:
    """Weights, configurations and tokenizers; no pickle, no code, no other format's folder, nothing hidden."""
    paths = ("config.json", "model.safetensors", "tokenizer.model", "vocab.txt", "chat_template.jinja")
    others = ("pytorch_model.bin", "modeling.py", "onnx/config.json", ".gitattributes", "tf_model.h5", "README.md")
    assert chosen(MODEL, *paths, *others) == sorted(paths)


def test_a_data_set_is_its_rows() -> None:
    """Tables, texts, images, and what a saved data set has beside them; nothing about it, nothing packed."""
    paths = ("data/a.jsonl", "b.csv", "c.parquet", "d.jsonl.gz", "e/f.PNG", "dataset_info.json", "g.arrow")
    others = ("README.md", "LICENSE.txt", "load.py", "x.pkl", "y.zip", ".cache/z.jsonl")
    assert chosen(DATA, *paths, *others) == sorted(paths)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("validation.csv", "validation"),
        ("en/dev.jsonl", "validation"),
        ("train/test/x.csv", "test"),
        ("training_data.jsonl", "train"),
        ("constraints.jsonl", ""),
        ("latest.csv", ""),
    ],
)
def test_splits_by_name(path: str, expected: str) -> None:
    """Whole words in names and folders; the last one counts."""
    assert part_of(path) == expected


def test_train_is_taken_and_the_first_where_there_is_none() -> None:
    """Another by name, all by a star."""
    assert chosen(DATA, "train.csv", "test.csv", "state.json") == ["state.json", "train.csv"]
    assert chosen(DATA, "validation.csv", "test.csv") == ["test.csv"]
    assert chosen(Wanted(kind="dataset", split="dev"), "validation.csv", "test.csv") == ["validation.csv"]
    assert chosen(Wanted(kind="dataset", split="*"), "train.csv", "test.csv") == ["test.csv", "train.csv"]
    assert chosen(DATA, "a.csv", "b.csv") == ["a.csv", "b.csv"]


def test_patterns_narrow_down() -> None:
    """They never widen: what may not be taken stays out."""
    wanted = Wanted(kind="dataset", include=("en/*", "*.pkl"))
    assert chosen(wanted, "en/a.csv", "de/a.csv", "b.pkl") == ["en/a.csv"]


@pytest.mark.parametrize(
    ("wanted", "paths", "code"),
    [
        (DATA, (), Code.NOT_FOUND),
        (DATA, ("dataset_info.json",), Code.NOT_FOUND),
        (MODEL, ("model.bin",), Code.NOT_FOUND),
        (DATA, ("../a.csv",), Code.NOT_FOUND),
        (DATA, ("a/../../b.csv",), Code.NOT_FOUND),
        (DATA, ("a//b.csv",), Code.NOT_ALLOWED),
        (DATA, ("/a.csv",), Code.NOT_ALLOWED),
        (Wanted(kind="dataset", most_files=1), ("a.csv", "b.csv"), Code.TOO_LARGE),
        (Wanted(kind="dataset", largest_bytes=1), ("a.csv", "b.csv"), Code.TOO_LARGE),
        (Wanted(kind="dataset", split="train"), ("a.csv",), Code.NOT_FOUND),
    ],
)
def test_what_cannot_be_taken_is_told(wanted: Wanted, paths: tuple[str, ...], code: Code) -> None:
    """By its kind of fault; a name that leaves its place is never taken."""
    with pytest.raises(SourceFault) as fault:
        choose(entries(*paths), wanted)
    assert fault.value.code == code
