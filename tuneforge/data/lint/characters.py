"""Characters that are probably not meant: broken encodings, invisible ones, ones that turn the direction of writing."""

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

_BREAKS: Final = str.maketrans("", "", "\n\t\r")
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_BIDI: Final = re.compile("[\u202a-\u202e\u2066-\u2069]")
# Joiners belong to Persian, Indic scripts and emoji; between Latin letters they do not.
_INVISIBLE: Final = re.compile(
    "[\u200b\u2060\ufeff\u00ad\u180e]|(?<=[A-Za-z])[\u200c\u200d]|[\u200c\u200d](?=[A-Za-z])"
)
_MARKS: Final = re.compile("[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]{5,}")
_UPPER_HALF: Final = re.compile(
    "[\u0080-\u00ff\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]{2,}"
)


def is_plain(text: str) -> bool:
    """Returns whether a text is printable ASCII with tabs and line breaks: then there is nothing to find in it."""
    return text.isascii() and (text.isprintable() or text.translate(_BREAKS).isprintable())


def oddities(text: str) -> Iterator[tuple[str, str, int]]:
    """Yields (code, what it is, first place counted from 1) for each kind of oddity in a text, once a kind."""
    if is_plain(text):
        return
    if (place := text.find("\ufffd")) >= 0:
        yield "REPLACEMENT_CHARACTER", "the replacement character U+FFFD", place + 1
    if match := _CONTROL.search(text):
        yield "CONTROL_CHARACTER", f"the control character U+{ord(match.group()):04X}", match.start() + 1
    if text.isascii():
        return
    if (place := mojibake(text)) >= 0:
        yield "MOJIBAKE", "text in UTF-8 that was once read as Windows-1252 or Latin-1", place + 1
    if match := _BIDI.search(text):
        yield (
            "DIRECTION_OVERRIDE",
            f"U+{ord(match.group()):04X}, which turns the direction of writing",
            match.start() + 1,
        )
    if match := _INVISIBLE.search(text):
        yield "INVISIBLE_CHARACTER", f"the invisible character U+{ord(match.group()):04X}", match.start() + 1
    if match := _MARKS.search(text):
        yield "STACKED_MARKS", f"{len(match.group())} combining marks on one character", match.start() + 1
    if not unicodedata.is_normalized("NFC", text):
        yield "NOT_NORMALIZED", "characters in a decomposed form (not NFC)", 1


def mojibake(text: str) -> int:
    """Returns where UTF-8 that was read in a one-byte encoding begins; -1 where there is none.

    A run of characters that Windows-1252 has above ASCII is taken for it when its bytes are UTF-8, which real text in
    such an alphabet almost never is.
    """
    for match in _UPPER_HALF.finditer(text):
        run = match.group()
        encoded = bytes(_byte(character) for character in run)
        for start in range(len(encoded)):
            length = _sequence_length(encoded[start])
            if length and len(encoded) - start >= length and _is_utf8(encoded[start : start + length]):
                return match.start() + start
    return -1


def _byte(character: str) -> int:
    try:
        return character.encode("cp1252")[0]
    except UnicodeEncodeError:
        return ord(character) if ord(character) < 256 else 0x20


def _sequence_length(first: int) -> int:
    """Returns how many bytes a UTF-8 sequence has that begins so; 0 when none does, or it is one of ASCII."""
    if 0xC2 <= first <= 0xDF:
        return 2
    if 0xE0 <= first <= 0xEF:
        return 3
    return 4 if 0xF0 <= first <= 0xF4 else 0


def _is_utf8(sequence: bytes) -> bool:
    try:
        sequence.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
