"""What a lint looks for, and how far it goes."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tuneforge.data.lint.preview import LengthPolicy
from tuneforge.data.rendering import ChatFormat
from tuneforge.data.vocabulary import load_tokenizer
from tuneforge.specs.spec import OverlongPolicy

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MOST_LISTED: Final = 1000
"""Findings of one code that are listed unless told otherwise; all are counted."""
MOST_REMEMBERED: Final = 1_000_000
"""Rows that are compared with each other unless told otherwise: some 700 MB with all checks on."""
LENGTH: Final = LengthPolicy(max_tokens=1024, overlong=OverlongPolicy.DROP)
"""The spec's own defaults."""


class UnknownCheck(ValueError):
    """A check was named that there is not."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LintOptions:
    """What a lint looks for, and how far it goes."""

    only: tuple[str, ...] = ()
    """Names or groups of the checks that run; empty for all. Rows that cannot be read are always told."""
    without: tuple[str, ...] = ()
    """Names or groups of checks that do not run."""
    length: LengthPolicy = LENGTH
    """How long rows may be; counts with a model only."""
    most_listed: int = MOST_LISTED
    """Findings of one code that are listed, >= 0; all are counted."""
    most_remembered: int = MOST_REMEMBERED
    """Rows that are compared with each other, >= 1; later ones are told apart in a finding of their own."""
    progress_every: int = 2000
    """Rows between two reports of progress, >= 1."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TextModel:
    """The tokenizer and the chat template by which rows are made into tokens."""

    tokenizer: "Tokenizer"
    chat_format: ChatFormat

    @classmethod
    def load(cls, folder: Path) -> "TextModel":
        """Reads both from a model's folder; weights are not needed.

        Raises:
            RenderingError: a file of the tokenizer is missing or malformed.
            MissingExtra: the extra `data` is not installed.
        """
        tokenizer = load_tokenizer(folder)
        return cls(tokenizer=tokenizer, chat_format=ChatFormat.load(folder, tokenizer))
