"""The token cache: the same rows with and without it, bounded, and never trusted."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.trainer.engine import texts
from services.trainer.engine.corpus import Corpus, read_corpus
from services.trainer.engine.texts import Texts
from services.trainer.engine.token_cache import Entry, TokenCache, key_of
from services.trainer.engine.training_task import RowChoice, TrainingInputs
from tests.support.training_run import tiny_inputs
from tuneforge.data.split import Side, Split
from tuneforge.specs.defaults import with_defaults
from tuneforge.specs.spec import Architecture, OverlongPolicy, TrainingSpec

ENTRY = Entry(
    facts={"digest": "d", "count": 3},
    arrays={
        "tokens": np.arange(100, dtype=np.int32),
        "ids": np.array([b"a", b"bc"]),
        "none": np.zeros(0, dtype=np.int64),
        "pairs": np.ones((3, 2), dtype=np.float32),
    },
)


def cache_in(folder: Path, limit_bytes: int = 1 << 20) -> TokenCache:
    """Returns a cache."""
    return TokenCache(folder=folder / "tokens", limit_bytes=limit_bytes)


def entry_file(folder: Path) -> Path:
    """Returns the only entry's file."""
    (path,) = (folder / "tokens").iterdir()
    return path


def read(task: TrainingInputs, monkeypatch: pytest.MonkeyPatch) -> tuple[Corpus, int]:
    """Returns the training rows of a run and how many corpora had to be made from their text."""
    made = []

    def counted(*args: object, **kwargs: object) -> Corpus:
        made.append(1)
        return read_corpus(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(texts, "read_corpus", counted)
    spec: TrainingSpec = with_defaults(task.spec, Architecture(class_name="LlamaForCausalLM", config={}, tensors=()))
    return Texts(task, spec, lambda: None).train, len(made)


def same(one: Corpus, other: Corpus) -> bool:
    """Tells whether two corpora are equal to the last token."""
    rows = zip(one.examples, other.examples, strict=True)
    return all(
        (a.id, a.tokens_T.tolist(), a.labels_S.tolist()) == (b.id, b.tokens_T.tolist(), b.labels_S.tolist())
        for a, b in rows
    ) and (one.digest, one.dropped, one.cut, one.end_token, one.is_chat, one.lengths) == (
        other.digest,
        other.dropped,
        other.cut,
        other.end_token,
        other.is_chat,
        other.lengths,
    )


def test_an_entry_comes_back_as_it_went_in(tmp_path: Path) -> None:
    """Facts and arrays of any kind and shape are the same, mapped read-only."""
    cache = cache_in(tmp_path)
    assert cache.load("k") is None
    cache.save("k", ENTRY)
    found = cache.load("k")
    assert found is not None
    assert found.facts == ENTRY.facts
    assert list(found.arrays) == list(ENTRY.arrays)
    for name, array in ENTRY.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
        assert found.arrays[name].dtype == array.dtype
        assert not found.arrays[name].flags.writeable
    assert entry_file(tmp_path).stat().st_mode & 0o077 == 0  # rows of a project are nobody else's


def test_a_second_run_makes_no_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows come from the cache the second time, with the digest that a resume compares."""
    task = replace(tiny_inputs(tmp_path), tokens=cache_in(tmp_path))
    without, _ = read(replace(task, tokens=None), monkeypatch)
    first, made_first = read(task, monkeypatch)
    second, made_second = read(task, monkeypatch)
    assert (made_first, made_second) == (1, 0)
    assert same(without, first)
    assert same(without, second)


@pytest.mark.parametrize(
    "change", ["rows", "tokenizer", "template", "max_tokens", "overlong", "split", "side", "share"]
)
def test_whatever_decides_about_tokens_is_in_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """A change of anything that tokens depend on makes them anew."""
    task = replace(tiny_inputs(tmp_path), tokens=cache_in(tmp_path))
    task = replace(task, train_rows=RowChoice(split=Split(validation_ratio=0.3)))
    read(task, monkeypatch)
    base, data = tmp_path / "base", task.spec.data
    match change:
        case "rows":
            with task.train[0].open("ab") as file:
                file.write(b"\n")
        case "tokenizer" | "template":
            name = "tokenizer.json" if change == "tokenizer" else "tokenizer_config.json"
            (base / name).write_text((base / name).read_text() + " ")
        case "max_tokens":
            task = replace(task, spec=replace(task.spec, data=replace(data, max_tokens=64)))
        case "overlong":
            task = replace(task, spec=replace(task.spec, data=replace(data, overlong=OverlongPolicy.TRUNCATE)))
        case "split":
            task = replace(task, train_rows=RowChoice(split=Split(validation_ratio=0.3, seed=1)))
        case "side":
            task = replace(task, train_rows=RowChoice(split=Split(validation_ratio=0.3), side=Side.VALIDATION))
        case "share":
            task = replace(task, spec=replace(task.spec, data=replace(data, train_fraction=0.9)))
    assert read(task, monkeypatch)[1] == 1


def test_a_damaged_entry_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte that is not what it was, anywhere, is found; the entry is removed and the next run has it whole again."""
    task = replace(tiny_inputs(tmp_path), tokens=cache_in(tmp_path))
    first, _ = read(task, monkeypatch)
    path = entry_file(tmp_path)
    whole = path.read_bytes()
    tried = 0
    for place in (0, 9, 20, 60, 300, len(whole) // 2, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        again, made = read(task, monkeypatch)
        # What fills the space between two arrays carries nothing; every other byte counts.
        assert same(first, again)
        tried += made
    assert tried >= 6
    for length in (0, 1, 8, 47, 48, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert same(first, read(task, monkeypatch)[0])
        assert path.read_bytes() == whole
    path.write_bytes(whole + b"\0")
    assert read(task, monkeypatch)[1] == 1


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    """The cache stays below its limit; a use makes an entry young again; one that is too large is not kept."""
    cache_in(tmp_path).save("size", ENTRY)
    size = entry_file(tmp_path).stat().st_size
    cache = cache_in(tmp_path, limit_bytes=3 * size)

    def kept() -> set[str]:
        return {path.stem for path in cache.folder.iterdir()}

    for age, key in ((30, "size"), (20, "b"), (10, "c")):
        cache.save(key, ENTRY)
        os.utime(cache.folder / f"{key}.tokens", ns=(0, 10**18 - age * 10**9))
    mapped = cache.load("size")
    assert mapped is not None
    cache.save("d", ENTRY)
    assert kept() == {"size", "c", "d"}
    os.utime(cache.folder / "size.tokens", ns=(0, 0))
    cache.save("e", ENTRY)
    assert kept() == {"c", "d", "e"}
    assert mapped.arrays["tokens"].sum() == ENTRY.arrays["tokens"].sum()  # gone from the folder, not from who has it
    small = cache_in(tmp_path / "small", limit_bytes=size - 1)
    small.save("k", ENTRY)
    assert small.load("k") is None


def test_a_disk_that_refuses_costs_the_entry_only(tmp_path: Path) -> None:
    """Without a place to write, nothing is kept and nothing is raised."""
    (tmp_path / "tokens").write_text("a file where the folder should be")
    cache = cache_in(tmp_path)
    cache.save("k", ENTRY)
    assert cache.load("k") is None


def test_keys_tell_files_apart(tmp_path: Path) -> None:
    """Bytes that move from one file to the next, and the order of files, change the key."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"ab")
    two.write_bytes(b"c")
    first = key_of({}, [one, two])
    assert key_of({}, [two, one]) != first
    assert key_of({"a": 1}, [one, two]) != first
    one.write_bytes(b"a")
    two.write_bytes(b"bc")
    assert key_of({}, [one, two]) != first
