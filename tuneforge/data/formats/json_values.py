"""JSON that is no JSONL: an array of objects, or objects that are spread over lines, one held at a time."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, Final

from tuneforge.data.formats.parsed import Limits, RawRow
from tuneforge.data.formats.remarks import nothing_in_it, too_large
from tuneforge.data.formats.strict_json import DECODER, ONE_A_LINE, checked_object, cut_off, syntax_fault, too_deep
from tuneforge.data.problems import ProblemCode, RowFault

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_BETWEEN: Final = re.compile(r"[ \t\r\n]*,?[ \t\r\n]*")
_SHOWN: Final = 400


def read_values(content: Iterator[bytes], limits: Limits) -> Iterator[RawRow]:
    """Yields the objects of an array, or objects one after the other.

    Where the text is no longer JSON, what follows cannot be told apart; so that is the last thing yielded.

    Args:
        content: pieces of a file.
        limits: how much is taken.
    """
    text = _Text(content)
    rows = 0
    try:
        text.skip(_SPACE)
        is_array = text.take("[")
        text.skip(_SPACE)
        while not text.is_at_end() and not (is_array and text.take("]")):
            rows += 1
            yield _next_row(text, limits)
            text.skip(_BETWEEN if is_array else _SPACE)
            if is_array and text.is_at_end():
                raise cut_off(text.length())
        text.skip(_SPACE)
        if not text.is_at_end():
            raise RowFault(ProblemCode.NOT_JSONL, "Something stands behind the array.", ONE_A_LINE)
    except RowFault as fault:
        yield RawRow(text.line, None, fault, text.ahead())
        return
    if not rows:
        yield RawRow(0, None, nothing_in_it())


def _next_row(text: "_Text", limits: Limits) -> RawRow:
    line = text.line
    value, written = text.value(limits)
    try:
        return RawRow(line, checked_object(value, written), raw=written[:_SHOWN])
    except RowFault as fault:
        return RawRow(line, None, fault, written[:_SHOWN])


class _Text:
    """A text that comes in pieces, read from a moving place."""

    def __init__(self, content: Iterator[bytes]) -> None:
        self._content = content
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._place = 0
        self._is_over = False
        self.line = 1
        """The line that the place is in, from 1."""
        self._more()
        if self._text.startswith("\ufeff"):
            self._place = 1

    def length(self) -> int:
        """Returns how many characters are held from the place on."""
        return len(self._text) - self._place

    def ahead(self) -> str:
        """Returns some characters from the place on."""
        return self._text[self._place : self._place + _SHOWN]

    def is_at_end(self) -> bool:
        """Tells whether nothing is left."""
        while self._place == len(self._text) and not self._is_over:
            self._more()
        return self._place == len(self._text)

    def skip(self, pattern: re.Pattern[str]) -> None:
        """Moves past what a pattern matches; it must match the empty text."""
        while True:
            match = pattern.match(self._text, self._place)
            assert match is not None
            if match.end() < len(self._text) or self._is_over:
                return self._move(match.end())
            self._more()

    def take(self, character: str) -> bool:
        """Moves past a character if it stands here."""
        if self._text[self._place : self._place + 1] != character:
            return False
        self._move(self._place + 1)
        return True

    def value(self, limits: Limits) -> tuple[Any, str]:
        """Reads one JSON value and moves past it.

        Returns:
            The value, and the text it was read from.

        Raises:
            RowFault: there is none, it is too large, or the file ends within it.
        """
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._place)
            except RecursionError:
                raise too_deep() from None
            except json.JSONDecodeError as error:
                if self._is_over:
                    text = self._text[self._place :]
                    error = json.JSONDecodeError(error.msg, text, max(0, error.pos - self._place))
                    raise syntax_fault(error, text, is_whole=False) from None
                if self.length() > limits.row_bytes:
                    raise too_large(limits) from None
            else:
                if end < len(self._text) or self._is_over:
                    written = self._text[self._place : end]
                    self._move(end)
                    return value, written
            self._more()

    def _move(self, place: int) -> None:
        self.line += self._text.count("\n", self._place, place)
        self._place = place

    def _more(self) -> None:
        piece = next(self._content, b"")
        self._is_over = not piece
        try:
            added = self._decoder.decode(piece, final=self._is_over)
        except UnicodeDecodeError as error:
            message = f"Byte 0x{error.object[error.start]:02x} near this line is not UTF-8."
            raise RowFault(ProblemCode.NOT_UTF8, message, "Save the file as UTF-8.") from None
        self._text, self._place = self._text[self._place :] + added, 0
