"""From tokens to text, piece by piece: never half a character, never a stop text or its beginning.

A token may be part of a character, and what a token reads as may depend on the one before it (SentencePiece drops the
space of a first word). So each piece is decoded together with the tokens of the piece before, and what may still change
is held back.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BROKEN: Final = "\ufffd"
"""What a decoder writes for bytes that are no character (yet)."""
_LONGEST_BROKEN: Final = 3
"""A character has at most 4 bytes, so at most 3 of them wait for more."""


class TextStream:
    """The text of one completion."""

    def __init__(self, tokenizer: "Tokenizer", stop: Sequence[str] = ()) -> None:
        """Takes the model's tokenizer and the texts that end the completion."""
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._window = 0
        """Where the tokens begin that are decoded together."""
        self._piece = 0
        """Where the newest whole piece begins."""
        self._given = ""
        """Text of the window that is decoded for good."""
        self._held = ""
        """Text that may be the beginning of a stop text."""
        self.is_stopped = False
        """Whether a stop text came."""

    def push(self, token: int) -> str:
        """Adds a token and returns the text that is certain now; nothing after a stop text."""
        if self.is_stopped:
            return ""
        self._ids.append(token)
        text = self._decoded()
        loose = text.rstrip(_BROKEN)
        certain = text[: max(len(loose), len(text) - _LONGEST_BROKEN)]
        if len(certain) <= len(self._given) or not certain.startswith(self._given):
            return ""
        added = certain[len(self._given) :]
        self._given = certain
        if certain == text:
            self._window, self._piece = self._piece, len(self._ids)
            self._given = self._decoded()
        return self._past_stops(added)

    def finish(self) -> str:
        """Returns the text that was held back, without the bytes of a character that was never finished."""
        if self.is_stopped:
            return ""
        text = self._decoded()
        rest = text[len(self._given) :] if text.startswith(self._given) else ""
        added = self._past_stops(rest.rstrip(_BROKEN))
        if self.is_stopped:
            return added
        added, self._held = added + self._held, ""
        return added

    def _decoded(self) -> str:
        return str(self._tokenizer.decode(self._ids[self._window :], skip_special_tokens=True))

    def _past_stops(self, added: str) -> str:
        """Returns what can be given out of the held and the added text; sets `is_stopped` at a stop text."""
        if not self._stop:
            return added
        text = self._held + added
        places = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        if places:
            self.is_stopped, self._held = True, ""
            return text[: min(places)]
        longest = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - longest :]
        return text[: len(text) - longest]


def _overlap(text: str, stop: str) -> int:
    """Returns how long the longest end of `text` is that a stop text begins with."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
