"""Text comes in pieces without half characters, and without a stop text or its beginning."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from services.inference.engine.text import TextStream
from tests.support.tiny_model import make_tiny_model
from tuneforge.data.vocabulary import load_tokenizer


@pytest.fixture(scope="module", name="byte_level")
def _byte_level(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(make_tiny_model(Path(tmp_path_factory.mktemp("model"))))


@pytest.fixture(scope="module", name="sentencepiece")
def _sentencepiece() -> Any:
    """A tokenizer as Llama 2's: spaces as ▁, unknown characters as bytes, the first space dropped."""
    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁hello", "▁world", "▁", "s"]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def pushed(tokenizer: Any, ids: Sequence[int], stop: Sequence[str] = ()) -> list[str]:
    """Returns the pieces of a text, the last one from `finish`."""
    stream = TextStream(tokenizer, stop)
    return [*(stream.push(token) for token in ids), stream.finish()]


@pytest.mark.parametrize("text", ["plain text", "ünï — 😀👩‍👩‍👧 end", "日本語のテキスト", "a\ufffdb"])
def test_pieces_join_to_the_text(byte_level: Any, text: str) -> None:
    """Every piece is whole characters, and together they are the text."""
    pieces = pushed(byte_level, byte_level.encode(text).ids)
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_survives(byte_level: Any, text: str) -> None:
    """Whatever is written comes out as it was, piece by piece."""
    ids = byte_level.encode(text, add_special_tokens=False).ids
    expected = byte_level.decode(ids, skip_special_tokens=True)
    assert "".join(pushed(byte_level, ids)) == expected


def test_spaces_between_words_survive(sentencepiece: Any) -> None:
    """A decoder that drops the first word's space drops no other, though words come one by one."""
    hello, world = (sentencepiece.token_to_id(word) for word in ("▁hello", "▁world"))
    assert pushed(sentencepiece, [hello, world, world]) == ["hello", " world", " world", ""]


def test_bytes_of_a_character_are_given_together(sentencepiece: Any) -> None:
    """The four bytes of one character show as nothing, nothing, nothing and then the character."""
    ids = [sentencepiece.token_to_id(f"<0x{byte:02X}>") for byte in "😀".encode()]
    hello = sentencepiece.token_to_id("▁hello")
    assert pushed(sentencepiece, [hello, *ids]) == ["hello", "", "", "", "😀", ""]


def test_an_unfinished_character_is_left_out(byte_level: Any) -> None:
    """A completion that is cut within a character ends before it."""
    ids = byte_level.encode("ok😀").ids
    assert "".join(pushed(byte_level, ids[:-1])) == "ok"


def test_broken_bytes_do_not_hold_up_the_text(byte_level: Any) -> None:
    """Bytes that are no character show as the replacement character once text follows."""
    lone = byte_level.encode("é").ids[0]
    follow = byte_level.encode("abc").ids
    assert "".join(pushed(byte_level, [lone, *follow])) == "\ufffdabc"


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (["END"], "one two "),
        (["END", "two"], "one "),
        (["o t"], "one two END three"),
        (["e t"], "on"),
        (["three!"], "one two END three"),
        (["E", "END"], "one two "),
    ],
)
def test_a_stop_text_is_never_shown(byte_level: Any, stop: list[str], expected: str) -> None:
    """The text ends before the first stop text; a beginning of one that comes to nothing is given in the end."""
    text = "one two END three"
    ids = [token for character in text for token in byte_level.encode(character).ids]
    stream = TextStream(byte_level, stop)
    shown = ""
    for token in ids:
        shown += stream.push(token)
        assert expected.startswith(shown)
    assert shown + stream.finish() == expected
    assert stream.is_stopped == (expected != text)
