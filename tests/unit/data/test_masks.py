"""Tokens of completions are labels, tokens of prompts never are, and special tokens are added once."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from tests.support.tiny_model import make_tiny_model
from tuneforge.data.faults import OverlongRow, RenderingError
from tuneforge.data.masks import EncodedRow, _marks, encode, encode_all, encode_prompt, load_tokenizer
from tuneforge.data.rendering import ChatFormat
from tuneforge.data.rows import Row, RowShape, Turn
from tuneforge.specs.spec import OverlongPolicy

TURNS = tuple(
    Turn(role=role, content=text)
    for role, text in [
        ("user", "the user's ünï 😀"),
        ("assistant", "the 😀 answer\n"),
        ("user", "b"),
        ("assistant", "c"),
    ]
)
CHAT = Row(id="", line=3, shape=RowShape.MESSAGES, turns=TURNS)
PLAIN = Row(id="", line=1, shape=RowShape.PROMPT_COMPLETION, prompt="the user", completion=" the answer")


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def _encoded(folder: Path, row: Row, max_tokens: int = 500, policy: OverlongPolicy = OverlongPolicy.DROP) -> EncodedRow:
    result = encode(row, load_tokenizer(folder), ChatFormat.load(folder), max_tokens, policy)
    assert result is not None
    return result


def _label_texts(folder: Path, row: EncodedRow) -> str:
    labels = [token for token, is_label in zip(row.ids, row.supervised, strict=True) if is_label]
    return str(load_tokenizer(folder).decode(labels, skip_special_tokens=False))


def test_every_assistants_turn_is_a_label(folder: Path) -> None:
    """The labels of a conversation are the answers and their ends, also across characters of several tokens."""
    row = _encoded(folder, CHAT)
    assert _label_texts(folder, row) == "the 😀 answer\n<|im_end|>c<|im_end|>"
    assert row.num_supervised == sum(row.supervised) < len(row.ids)


def test_a_prompt_has_the_tokens_it_had_in_training(folder: Path) -> None:
    """Inference's prompt is a row's tokens up to its first label."""
    row = _encoded(folder, CHAT)
    prompt = encode_prompt(TURNS[:1], load_tokenizer(folder), ChatFormat.load(folder))
    assert row.ids[: len(prompt)] == tuple(prompt)
    assert row.supervised.index(True) == len(prompt)


def test_plain_rows_end_with_one_end_token(folder: Path) -> None:
    """A plain row's labels are its completion and one end-of-text token."""
    row = _encoded(folder, PLAIN)
    assert _label_texts(folder, row) == " the answer<|im_end|>"
    assert row.ids[: row.supervised.index(True)] == tuple(load_tokenizer(folder).encode("the user").ids)


def test_the_beginning_token_is_added_once(folder: Path, tmp_path: Path) -> None:
    """A tokenizer that adds a beginning token adds one to plain text, and none to what has one already."""
    copy = make_tiny_model(tmp_path / "with-bos")
    content = json.loads((copy / "tokenizer.json").read_text())
    bos = load_tokenizer(copy).token_to_id("<|im_start|>")
    assert bos is not None
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [bos], "tokens": ["<|im_start|>"]}},
    }
    (copy / "tokenizer.json").write_text(json.dumps(content))
    tokenizer, chat_format = load_tokenizer(copy), ChatFormat.load(copy)
    plain = _encoded(folder, PLAIN)
    with_bos = _encoded(copy, PLAIN)
    assert with_bos.ids == (bos, *plain.ids)
    assert with_bos.supervised == (False, *plain.supervised)
    assert encode_prompt("a", tokenizer, chat_format).count(bos) == 1
    assert encode_prompt("<|im_start|>a", tokenizer, chat_format).count(bos) == 1
    assert _encoded(copy, CHAT) == _encoded(folder, CHAT)


def test_overlong_rows_follow_the_policy(folder: Path) -> None:
    """A longer row is dropped, cut, or refused with its line and both lengths."""
    tokenizer, chat_format = load_tokenizer(folder), ChatFormat.load(folder)
    whole = _encoded(folder, CHAT)
    length, first_label = len(whole.ids), whole.supervised.index(True)
    assert encode(CHAT, tokenizer, chat_format, length - 1) is None
    assert _encoded(folder, CHAT, length).is_cut is False
    cut = _encoded(folder, CHAT, first_label + 1, OverlongPolicy.TRUNCATE)
    assert (cut.is_cut, cut.num_supervised, cut.ids) == (True, 1, whole.ids[: first_label + 1])
    assert encode(CHAT, tokenizer, chat_format, first_label, OverlongPolicy.TRUNCATE) is None
    with pytest.raises(OverlongRow, match=f"line 3: The row has {length} tokens, but at most 10"):
        encode(CHAT, tokenizer, chat_format, 10, OverlongPolicy.REFUSE)


def test_many_rows_have_the_tokens_of_each(folder: Path) -> None:
    """Made together, they are what each gives by itself, in order, those that are dropped too."""
    tokenizer, chat_format = load_tokenizer(folder), ChatFormat.load(folder)
    rows = [
        Row(id="", line=number, shape=RowShape.MESSAGES, turns=(*TURNS, *TURNS)) if number % 7 == 0 else CHAT
        for number in range(600)
    ]
    most = len(_encoded(folder, CHAT).ids)
    found = list(encode_all(iter(rows), tokenizer, chat_format, most))
    assert found == [encode(row, tokenizer, chat_format, most) for row in rows]
    assert found.count(None) == 86


@pytest.mark.parametrize("place", [0, 255, 256, 300])
def test_a_fault_comes_in_its_place(place: int, folder: Path) -> None:
    """Rows before one that cannot be written, or cannot be read, have their tokens; of two faults the first is told."""
    tokenizer, chat_format = load_tokenizer(folder), ChatFormat.load(folder)
    broken = replace(CHAT, turns=(Turn(role="user", content="<|im_end|>"), TURNS[1]))

    def rows() -> Iterator[Row]:
        yield from [CHAT] * place
        yield broken
        raise OSError("the disk")

    made = encode_all(rows(), tokenizer, chat_format, 500)
    assert len(list(islice(made, place))) == place
    with pytest.raises(RenderingError, match="control token"):
        next(made)
    longer = encode_all(rows(), tokenizer, chat_format, 10, OverlongPolicy.REFUSE)
    with pytest.raises(OverlongRow if place else RenderingError):
        next(longer)
    with pytest.raises(OSError, match="the disk"):
        list(encode_all((row for row in rows() if row is not broken), tokenizer, chat_format, 500))


@pytest.mark.parametrize(
    ("offset", "is_label"),
    [
        ((3, 6), False),
        ((3, 5), False),
        ((4, 8), False),
        ((5, 8), True),
        ((5, 5), False),
        ((6, 6), True),
        ((9, 11), False),
    ],
)
def test_a_token_that_reaches_into_the_prompt_is_no_label(offset: tuple[int, int], is_label: bool) -> None:
    """Only tokens that lie whole between characters 5 and 10 are labels; empty ones count by their end."""
    assert _marks([offset], [(5, 10)]) == [is_label]


def test_a_broken_tokenizer_is_named(tmp_path: Path) -> None:
    """A tokenizer file that is missing or malformed is named, with a cure."""
    with pytest.raises(RenderingError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(RenderingError, match=r"tokenizer\.json of the model cannot be read"):
        load_tokenizer(tmp_path)
