"""The tokenizer of a model: `tokenizer.json`, read by the package `tokenizers` alone."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneforge.data.faults import MissingExtra, RenderingError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def load_tokenizer(folder: Path) -> "Tokenizer":
    """Loads `tokenizer.json` of a model's folder, with truncation and padding off.

    Raises:
        RenderingError: the file is missing or malformed.
        MissingExtra: the package `tokenizers` is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtra("tokenizers", "Making tokens") from error
    path = folder / "tokenizer.json"
    if not path.is_file():
        message = "The model has no tokenizer.json."
        raise RenderingError(message, "Save its tokenizer with `save_pretrained` from a fast tokenizer.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust binding raises plain Exception
        raise RenderingError(f"tokenizer.json of the model cannot be read: {error}.", "Copy the file again.") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def longest_token(tokenizer: "Tokenizer") -> int | None:
    """Returns the most characters that one token stands for; None where a token may stand for any number.

    Known for byte-pair encodings that write every byte. Elsewhere an unknown word, or spaces that are taken away, may
    be of any length.
    """
    content = json.loads(tokenizer.to_str())
    kinds = _kinds(content.get("normalizer")) | _kinds(content.get("pre_tokenizer"))
    model = content["model"]
    writes_bytes = "ByteLevel" in kinds or bool(model.get("byte_fallback"))
    keeps_text = kinds <= {"ByteLevel", "Split", "Digits", "Prepend"} and not any(
        token.get("lstrip") or token.get("rstrip") for token in content.get("added_tokens", ())
    )
    if model.get("type") != "BPE" or not writes_bytes or not keeps_text or _removes(content.get("pre_tokenizer")):
        return None
    return max(map(len, tokenizer.get_vocab()), default=1)


def _kinds(part: dict[str, Any] | None) -> set[str]:
    return {step["type"] for step in _steps(part)}


def _removes(part: dict[str, Any] | None) -> bool:
    return any(step.get("behavior") == "Removed" for step in _steps(part))


def _steps(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Returns the steps of a normalizer or pre-tokenizer, those of a sequence one by one."""
    if part is None:
        return []
    inner = [*part.get("normalizers", ()), *part.get("pretokenizers", ())]
    return [step for one in inner for step in _steps(one)] if part["type"] == "Sequence" else [part]
