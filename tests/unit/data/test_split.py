"""Ids and sides are of the content alone; statistics and duplicates are counted while rows go by."""

import json
import math
import random
import re
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.data.reading import parquet, write
from tuneforge.data.duplicates import Repeats
from tuneforge.data.examination import examine, side_in
from tuneforge.data.formats import open_rows
from tuneforge.data.identity import canonical_json, row_id, short
from tuneforge.data.split import Side, Split, side_of
from tuneforge.data.statistics import QUANTILES, Lengths

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
CONTENT = st.dictionaries(st.text(max_size=6), JSON, max_size=4)


def turned(value: object) -> object:
    """Returns a value with the keys of its objects in another order."""
    if isinstance(value, dict):
        return {name: turned(value[name]) for name in reversed(value)}
    return [turned(inner) for inner in value] if isinstance(value, list) else value


@settings(max_examples=60)
@given(CONTENT)
def test_an_id_does_not_depend_on_the_order_of_keys(content: dict[str, object]) -> None:
    """The same content has the same id, and reading its canonical text gives it back."""
    again = turned(content)
    assert isinstance(again, dict)
    assert row_id(content) == row_id(again) == row_id(json.loads(canonical_json(content)))
    assert re.fullmatch("[0-9a-f]{64}", row_id(content))
    assert len(short(row_id(content))) == 12


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=10).filter(str.strip), min_size=2, max_size=30), st.randoms())
def test_a_side_does_not_depend_on_order_or_company(texts: list[str], rng: random.Random) -> None:
    """Rows keep their side when they are put in another order or others are added; equal rows lie on one side."""
    split = Split(validation_ratio=0.3, seed=5)
    ids = [row_id({"text": text}) for text in texts]
    sides = {identity: side_of(identity, split) for identity in ids}
    shuffled = [*ids, *(row_id({"text": f"more {number}"}) for number in range(5))]
    rng.shuffle(shuffled)
    assert all(side_of(identity, split) is sides[identity] for identity in shuffled if identity in sides)


def test_the_share_and_the_seed_decide() -> None:
    """About as many rows are for validation as asked for; with more of them, those from before stay there."""
    ids = [row_id({"text": str(number)}) for number in range(20_000)]
    some = {each for each in ids if side_of(each, Split(validation_ratio=0.1, seed=1)) is Side.VALIDATION}
    more = {each for each in ids if side_of(each, Split(validation_ratio=0.2, seed=1)) is Side.VALIDATION}
    other = {each for each in ids if side_of(each, Split(validation_ratio=0.1, seed=2)) is Side.VALIDATION}
    assert 1800 < len(some) < 2200
    assert some < more
    assert 100 < len(some & other) < 300
    assert all(side_of(each, Split()) is Side.TRAIN for each in ids[:10])


def test_the_format_does_not_change_sides(tmp_path: Path) -> None:
    """The same rows as JSONL in one order and as Parquet in another have the same ids and sides."""
    split = Split(validation_ratio=0.4, seed=3)
    rows = [{"prompt": f"p{number}", "completion": "c", "id": number} for number in range(50)]
    columns = {name: [row[name] for row in reversed(rows)] for name in ("prompt", "completion")}
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    files = write(tmp_path, {"a.jsonl": lines, "b.parquet": parquet(columns)})
    sides = [
        {row.row_id: side_in(row, split) for row in open_rows({name: files[name]})} for name in ("a.jsonl", "b.parquet")
    ]
    assert len(sides[0]) == 50
    assert sides[0] == sides[1]
    assert set(sides[0].values()) == {Side.TRAIN, Side.VALIDATION}


def test_statistics_tell_what_a_data_set_is_like(tmp_path: Path) -> None:
    """Rows by side, turns, labels, sizes, duplicates: counted in one pass."""
    turns = [{"role": "user", "content": "abc"}, {"role": "assistant", "content": "de"}]
    chats = [{"messages": turns}, {"messages": [*turns, *turns]}, {"messages": turns}]
    files = write(tmp_path, {"a.jsonl": "".join(json.dumps(row) + "\n" for row in chats).encode()})
    found = examine(files).statistics
    assert (found.rows, found.duplicates, dict(found.turns)) == (3, 1, {2: 2, 4: 1})
    assert (found.characters.smallest, found.characters.largest, found.characters.total) == (5, 10, 20)
    assert found.target_characters.total == 8
    labels = [{"text": "x", "label": label} for label in "aab"]
    files = write(tmp_path, {"b.jsonl": "".join(json.dumps(row) + "\n" for row in labels).encode()})
    counted = examine({"b.jsonl": files["b.jsonl"]})
    assert dict(counted.statistics.labels) == {"a": 2, "b": 1}
    assert counted.shape == "TEXT_LABEL"


def test_files_that_divide_the_rows_leave_no_room_for_a_ratio(tmp_path: Path) -> None:
    """The parts are told by the files; asking for a share beside them is an error."""
    row = b'{"prompt": "a", "completion": "b"}\n'
    files = write(tmp_path, {"train.jsonl": row * 2, "test.jsonl": row})
    found = examine(files)
    assert (found.is_divided, dict(found.statistics.sides)) == (True, {Side.TRAIN: 2, Side.TEST: 1})
    assert examine(files, split=Split(validation_ratio=0.2)).num_errors == 1


@settings(max_examples=30)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=200))
def test_quantiles_are_nearly_right(lengths: list[int]) -> None:
    """Each is within 5 % of the true one, or next to it for very small sizes."""
    counted = Lengths()
    for length in lengths:
        counted.add(length)
    found, ordered = counted.result(), sorted(lengths)
    assert (found.smallest, found.largest, found.total) == (ordered[0], ordered[-1], sum(ordered))
    for share, value in zip(QUANTILES, found.quantiles, strict=True):
        true = ordered[math.ceil(share * len(ordered)) - 1]
        assert abs(value - true) <= max(1, 0.05 * true)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=120), st.integers(0, 2000))
def test_repeats_are_exact_on_disk_too(keys: list[int], held_bytes: int) -> None:
    """Every key that was there before is found once, with its first place, however little is kept in memory."""
    first: dict[int, int] = {}
    expected = set()
    with Repeats(held_bytes=held_bytes) as repeats:
        for line, key in enumerate(keys, start=1):
            repeats.add(str(key), 0, line)
            if first.setdefault(key, line) != line:
                expected.add((0, line, 0, first[key]))
        assert set(repeats.found()) == expected
        assert repeats.count() == len(expected)
