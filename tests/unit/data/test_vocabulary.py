"""How many characters a token may stand for is told only where it is sure."""

from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from tests.support.tiny_model import make_tiny_model
from tuneforge.data.faults import RenderingError
from tuneforge.data.masks import encode_prompt
from tuneforge.data.rendering import ChatFormat
from tuneforge.data.vocabulary import load_tokenizer, longest_token


def _bytes() -> Tokenizer:
    vocabulary = {character: number for number, character in enumerate(["a", "b", "aa", "aaaa"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "a"), ("aa", "aa")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel()])
    return tokenizer


def test_the_longest_token_of_bytes_is_known() -> None:
    """It is the longest of the vocabulary, added tokens among them."""
    tokenizer = _bytes()
    assert longest_token(tokenizer) == 4
    tokenizer.add_special_tokens(["<|end|>"])
    assert longest_token(tokenizer) == 7


def test_a_tokenizer_that_drops_text_has_no_longest_token() -> None:
    """Unknown words, stripped spaces and composed characters let any number of characters be one token."""
    assert longest_token(Tokenizer(models.WordLevel(vocab={"a": 0, "?": 1}, unk_token="?"))) is None
    for normalizer in (normalizers.Strip(), normalizers.NFC()):
        tokenizer = _bytes()
        tokenizer.normalizer = normalizer
        assert longest_token(tokenizer) is None
    tokenizer = _bytes()
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    assert longest_token(tokenizer) is None


def test_a_text_above_the_limit_is_refused_with_both_lengths(tmp_path: Path) -> None:
    """A text as long as the limit is encoded, one character more is not."""
    folder = make_tiny_model(tmp_path / "model")
    tokenizer, chat_format = load_tokenizer(folder), ChatFormat.load(folder)
    assert encode_prompt("a" * 10, tokenizer, chat_format, 10)
    with pytest.raises(RenderingError, match=r"has 11 characters, .* at most 10"):
        encode_prompt("a" * 11, tokenizer, chat_format, 10)
