"""Configurations of a data set's card: which files are meant, by the rules of the hub's own library."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneforge._dataset_files import files_of
from tuneforge.data.formats.card import CardFault, choose_files, read_configs
from tuneforge.errors import InvalidArgument

FILES = ("README.md", "en/train-0.jsonl", "en/train-1.jsonl", "en/test.jsonl", "no/a.jsonl", "no/deep/b.jsonl")
TWO = """---
license: mit
configs:
- config_name: en
  data_files:
  - split: train
    path: "en/train-*"
  - {split: test, path: [en/test.jsonl]}
- config_name: no
  data_dir: ./no/
---
# Rows
"""
SIGNS = ["a", "b", "/", "*", "**", "**/", "?"]
DEFAULT = TWO.replace("  data_dir", "  default: true\n  data_dir")


def test_a_configuration_is_chosen_by_name() -> None:
    """Its patterns choose the files; `*` ends at a slash, a folder alone means all below it, `no` is no truth value."""
    assert choose_files(TWO, FILES, config="en") == dict.fromkeys(FILES[1:3], "train")
    assert choose_files(TWO, FILES, config="en", split="test") == {"en/test.jsonl": "test"}
    assert choose_files(TWO, FILES, config="en", split="*") == {**dict.fromkeys(FILES[1:3], "train"), FILES[3]: "test"}
    assert choose_files(TWO, FILES, config="no") == dict.fromkeys(FILES[4:], "train")


def test_without_a_name_the_default_is_taken() -> None:
    """The one that says so, the one of that name, or the only one; a card without any leaves all as it is."""
    assert choose_files(DEFAULT, FILES) == dict.fromkeys(FILES[4:], "train")
    assert choose_files(TWO.replace("config_name: no", "config_name: default"), FILES) == choose_files(DEFAULT, FILES)
    only = "---\nconfigs:\n- data_files: en/*.jsonl\n---\n"
    assert list(choose_files(only, FILES[:3]) or ()) == list(FILES[1:3])
    for card in ("", "# Rows", "---\nlicense: mit\n---\nconfigs:\n- none\n"):
        assert choose_files(card, FILES) is None


@pytest.mark.parametrize(
    ("card", "config", "split", "words"),
    [
        (TWO, "", "", "choose one of en, no"),
        (TWO, "de", "", "no configuration 'de'; there are en, no"),
        (TWO, "en", "dev", "no split 'dev' in the configuration 'en'; there are train, test"),
        ("# Rows", "en", "", "the card names none"),
        (TWO.replace("en/train-*", "fr/*"), "en", "", "no file fits"),
        (TWO.replace("split: train", "split: validation"), "en", "*", "take one split at a time"),
        ("---\nconfigs: 5\n---\n", "", "", "is no object"),
        ("---\nconfigs: [\n---\n", "", "", "cannot be read"),
        ("---\nconfigs:\n- 5\n---\n", "", "", "is no object"),
        ("---\nconfigs:\n- data_files: [{path: 5}]\n---\n", "", "", "without `split` and `path`"),
        ("---\nconfigs: " + "[" * 100_000 + "\n---\n", "", "", "cannot be read"),
        ("---\nconfigs:\n- !!python/object/apply:os.abort []\n---\n", "", "", "is no object"),
    ],
    ids=range(12),
)
def test_what_is_not_clear_is_refused(card: str, config: str, split: str, words: str) -> None:
    """B15: in words, with the names there are; a tag runs nothing, nesting without end is no traceback."""
    with pytest.raises(CardFault, match=words.replace("[", r"\[")):
        choose_files(card, FILES, config=config, split=split)


def test_merged_anchors_cost_nothing() -> None:
    """B15: an alias bomb is a few shared objects; merge keys, which would multiply them, mean nothing."""
    layers = "".join(f"  a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12))
    card = f"---\nconfigs:\n- config_name: en\n  a0: &a0 {{x: y}}\n{layers}  data_files: en/*\n---\n"
    assert [each.name for each in read_configs(card)] == ["en"]


def test_a_folder_is_uploaded_by_its_configuration(tmp_path: Path) -> None:
    """The files of one; without a word for it, all there are to choose from; a file has none."""
    for path in FILES:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(TWO if path == "README.md" else "{}")
    assert list(files_of(tmp_path, config="en")) == ["en/test.jsonl", "en/train-0.jsonl", "en/train-1.jsonl"]
    with pytest.raises(InvalidArgument, match="choose one of en, no"):
        files_of(tmp_path)
    with pytest.raises(InvalidArgument, match="one of a folder"):
        files_of(tmp_path / FILES[1], config="en")


@given(
    st.text("ab/", min_size=1, max_size=9),
    st.lists(st.sampled_from(["a", "b", "/", "*", "**", "**/", "?"]), max_size=8),
)
def test_patterns_mean_what_they_mean_as_expressions(path: str, parts: list[str]) -> None:
    """They are matched without walking back; a regular expression, which may walk back, says the same."""
    pattern = "".join(parts)
    signs = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    meant = "".join(signs.get(part) or re.escape(part) for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern))
    card = f"---\nconfigs:\n- data_files: {json.dumps(pattern)}\n---\n"
    try:
        taken = choose_files(card, [path])
    except CardFault:
        taken = {}
    assert bool(taken) == bool(re.fullmatch(meant, path))


def test_hostile_cards_take_no_longer() -> None:
    """Stars that would be walked over again and again, and a front that never ends."""
    stars = json.dumps("**a" * 300 + "b")
    with pytest.raises(CardFault, match="no file fits"):
        choose_files(f"---\nconfigs:\n- data_files: {stars}\n---\n", ["a" * 900])
    assert read_configs("---" + "\n" * 1_000_000) == ()
    with pytest.raises(CardFault, match="more than 1000 patterns of 1000 characters"):
        read_configs(f"---\nconfigs:\n- data_files: {json.dumps('*' * 1001)}\n---\n")
