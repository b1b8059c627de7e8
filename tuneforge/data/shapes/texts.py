"""Checks on the values of a row that every shape needs."""

import json
from typing import Any

from tuneforge.data.problems import ProblemCode, RowFault, kind_of


def text_of(value: Any, field: str) -> str:
    """Returns a value that must be a text.

    Raises:
        RowFault: it is not, or it holds what is no character.
    """
    if not isinstance(value, str):
        message = f"It is {kind_of(value)}, not a text."
        raise RowFault(ProblemCode.TYPE_MISMATCH, message, "Give one string.", field=field)
    if "\0" in value:
        message = f"Character {value.index(chr(0)) + 1} is NUL, which is no text."
        raise RowFault(ProblemCode.NUL_BYTE, message, "Take it out.", field=field)
    if not value.isascii():
        check_surrogates(value, field)
    return value


def check_surrogates(value: str, field: str) -> None:
    """Raises for half of a surrogate pair.

    Raises:
        RowFault: there is one.
    """
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        message = f"Character {error.start + 1} is half of a surrogate pair, which is no character."
        cure = "Write the character whole, or leave it out."
        raise RowFault(ProblemCode.NOT_UTF8, message, cure, field=field) from None


def target_of(value: Any, field: str) -> str:
    """Returns a text that is learned, so it must not be blank.

    Raises:
        RowFault: it is blank or no text.
    """
    if value is None:
        value = ""
    text = text_of(value, field)
    if not text or text.isspace():
        message = "It is empty, so there is nothing to learn from."
        raise RowFault(ProblemCode.EMPTY_TARGET, message, "Leave the row out or fill it in.", field=field)
    return text


def json_or_same(value: Any) -> Any:
    """Returns what a text holds when it is a JSON list or object, as cells of a table do; else the value itself."""
    if isinstance(value, str) and value[:1] in {"[", "{"}:
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def list_of(value: Any, field: str, cure: str) -> list[Any]:
    """Returns a value that must be a list.

    Raises:
        RowFault: it is not.
    """
    value = json_or_same(value)
    if not isinstance(value, list):
        raise RowFault(ProblemCode.TYPE_MISMATCH, f"It is {kind_of(value)}, not a list.", cure, field=field)
    return value
