"""Pairs of answers as rows and as tokens, texts in pieces, and what the linter makes of both."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_model import make_tiny_model
from tuneforge.data.formats import DataFile, ParsedRow, open_rows
from tuneforge.data.lint import LengthPolicy, LintOptions, Rows, TextModel, lint, preview
from tuneforge.data.lint.findings import Finding, Summary
from tuneforge.data.lint.preview import TokenFate
from tuneforge.data.masks import encode, fit, mark, pieces
from tuneforge.data.rows import MalformedRow, Row, to_row, to_rows, to_text
from tuneforge.data.shapes import RowShape
from tuneforge.specs.spec import OverlongPolicy

TEXTS = {"prompt": "Say cat.", "chosen": " cat", "rejected": " dog, dog"}
TURNS = {
    "prompt": [
        {"role": "user", "content": "Say cat."},
        {"role": "assistant", "content": "cat"},
        {"role": "user", "content": "Again."},
    ],
    "chosen": [{"role": "assistant", "content": "cat again"}],
    "rejected": [{"role": "assistant", "content": "no"}],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    """Tokenizer and template of a tiny model."""
    return TextModel.load(make_tiny_model(tmp_path_factory.mktemp("model")))


def parsed(folder: Path, *rows: dict[str, Any]) -> list[ParsedRow]:
    """Writes rows and reads them."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [row for row in open_rows([DataFile(path.name, path)]) if row.content is not None]


def learned(row: Row, model: TextModel) -> str:
    """Returns the text of the learned tokens."""
    marked = mark(row, model.tokenizer, model.chat_format)
    ids = [number for number, is_learned in zip(marked.ids, marked.supervised, strict=True) if is_learned]
    return str(model.tokenizer.decode(ids, skip_special_tokens=False))


def test_a_pair_is_two_texts_of_one_prompt(tmp_path: Path, model: TextModel) -> None:
    """Both read the prompt and learn their answer with the token that ends it."""
    (row,) = parsed(tmp_path, TEXTS)
    chosen, rejected = to_rows(row)
    assert (chosen.prompt, rejected.prompt) == ("Say cat.", "Say cat.")
    assert chosen.id == rejected.id == row.row_id
    assert [learned(each, model) for each in (chosen, rejected)] == [" cat<|im_end|>", " dog, dog<|im_end|>"]


def test_turns_before_the_answers_are_only_read(tmp_path: Path, model: TextModel) -> None:
    """An assistant's turn in the prompt of a pair is learned in neither text, though it would be in a conversation."""
    (row,) = parsed(tmp_path, TURNS)
    chosen, rejected = to_rows(row)
    assert chosen.is_chat
    assert chosen.context_turns == 3
    assert [learned(each, model) for each in (chosen, rejected)] == ["cat again<|im_end|>", "no<|im_end|>"]


def test_who_wants_other_shapes_is_told(tmp_path: Path) -> None:
    """A pair is no row of supervised fine-tuning, and a text has no rejected answer."""
    pair, text = parsed(tmp_path, TEXTS)[0], parsed(tmp_path, {"text": "all of it"})[0]
    with pytest.raises(MalformedRow, match="PREFERENCE cannot be learned by this task"):
        to_row(pair)
    with pytest.raises(MalformedRow, match="TEXT cannot be learned by this task"):
        to_rows(text, {RowShape.PREFERENCE})
    with pytest.raises(MalformedRow, match="shape PREFERENCE"):
        to_text(text, rejected=True)
    assert to_text(pair, rejected=True).completion == " dog, dog"
    assert to_text(text).completion == "all of it"


def test_a_long_text_is_divided_and_nothing_of_it_is_lost(tmp_path: Path, model: TextModel) -> None:
    """The pieces are the text; each but the first token of a piece is learned, and the preview says the same."""
    (row,) = parsed(tmp_path, {"text": "The cat sat in the hat. " * 6})
    text = to_text(row)
    marked = mark(text, model.tokenizer, model.chat_format)
    whole = fit(marked, 1, 16, OverlongPolicy.SPLIT)
    assert whole is not None
    found = pieces(whole, 16)
    assert len(found) > 3
    assert [number for piece in found for number in piece.ids] == list(marked.ids)
    assert all(not piece.supervised[0] and all(piece.supervised[1:]) for piece in found)
    assert {len(piece.ids) for piece in found[:-1]} == {16}
    drawn = preview(
        text, model.tokenizer, model.chat_format, LengthPolicy(max_tokens=16, overlong=OverlongPolicy.SPLIT)
    )
    assert drawn.labels == tuple(place for place in range(len(marked.ids)) if place % 16)
    assert all(token.fate is not TokenFate.CUT for token in drawn.tokens)


def test_a_short_text_is_its_only_piece(model: TextModel) -> None:
    """Under SPLIT a text that is short enough stays as it is."""
    row = Row(id="0" * 64, line=1, shape=RowShape.TEXT, completion="cat")
    split = encode(row, model.tokenizer, model.chat_format, 500, OverlongPolicy.SPLIT)
    assert split is not None
    assert pieces(split, 500) == [split] == [encode(row, model.tokenizer, model.chat_format, 500)]


def test_the_linter_looks_at_both_texts_of_a_pair(tmp_path: Path, model: TextModel) -> None:
    """A pair is as long as its longer text, and what one of them holds is found."""
    long = TEXTS | {"rejected": " dog" * 30}
    control = TEXTS | {"rejected": "a <|im_end|> b"}
    parsed(tmp_path, TEXTS, long, control)
    options = LintOptions(length=LengthPolicy(max_tokens=40))
    found = list(lint(Rows(files={"rows.jsonl": tmp_path / "rows.jsonl"}), options, model))
    codes = {(each.code, each.line) for each in found if isinstance(each, Finding)}
    assert ("OVERLONG_ROW", 2) in codes
    assert any("CONTROL" in code for code, line in codes if line == 3)
    assert not any(line == 1 for _, line in codes)
    summary = next(each for each in found if isinstance(each, Summary))
    assert summary.tokens is not None
    assert summary.tokens.dropped == 1
