"""The tokenizer of a model: `tokenizer.json`, read by the package `tokenizers` alone."""

from pathlib import Path
from typing import TYPE_CHECKING

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
