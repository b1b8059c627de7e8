"""JSON taken strictly: no NaN, no key twice, no number beyond 64 bits, no nesting beyond 64, no half characters."""

import json
import math
from typing import Any, Final, NoReturn

from tuneforge.data.problems import ProblemCode, RowFault, kind_of
from tuneforge.data.shapes import SHAPES_SENTENCE
from tuneforge.data.shapes.texts import check_surrogates

DEEPEST: Final = 64
ONE_A_LINE: Final = "Write one JSON object a line, without a comma after it."


def parse_object(text: str, *, is_whole: bool = True) -> dict[str, Any]:
    """Reads a text as one JSON object.

    Args:
        text: the text.
        is_whole: whether a line break ended it; if not, a fault at its end is called a cut-off.

    Raises:
        RowFault: not JSON, not an object, a key twice, too deep, a number out of range.
    """
    text = text.strip()
    try:
        row = DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise syntax_fault(error, text, is_whole=is_whole) from None
    except RecursionError:
        raise too_deep() from None
    return checked_object(row, text)


def checked_object(row: Any, text: str) -> dict[str, Any]:
    """Returns a JSON value that must be an object, not too deep and without halves of characters.

    Args:
        row: the value.
        text: what it was read from.

    Raises:
        RowFault: it is not so.
    """
    if not isinstance(row, dict):
        raise RowFault(ProblemCode.TYPE_MISMATCH, f"It is {kind_of(row)}, not an object.", SHAPES_SENTENCE)
    if text.count("{") + text.count("[") > DEEPEST and _depth(row) > DEEPEST:
        raise too_deep()
    if "\\ud" in text or "\\uD" in text:
        _check_characters(row, "")
    return row


def syntax_fault(error: json.JSONDecodeError, text: str, *, is_whole: bool) -> RowFault:
    """Returns what is wrong with a text that is not JSON.

    Args:
        error: what the decoder says.
        text: what it was given.
        is_whole: whether the text ends where it was meant to end.
    """
    if not is_whole and (error.pos >= len(text) or "Unterminated" in error.msg):
        return cut_off(len(text))
    message = f"It is not JSON: {error.msg.replace('starting at', 'begins')} at character {error.colno}."
    code = ProblemCode.NOT_JSONL if "Extra data" in error.msg else ProblemCode.MALFORMED_JSON
    return RowFault(code, message.replace("begins at at", "begins at"), ONE_A_LINE, column=error.colno)


def cut_off(characters: int) -> RowFault:
    """Returns the fault of a file that ends within a row."""
    message = f"The file ends in the middle of this row, after {characters} characters."
    return RowFault(ProblemCode.TRUNCATED, message, "Write the file again; the copy was cut off.", column=characters)


def too_deep() -> RowFault:
    """Returns the fault of a row that is nested too deep."""
    message = f"It is not JSON that can be read: it is nested more than {DEEPEST} deep."
    return RowFault(ProblemCode.MALFORMED_JSON, message, "Leave out deep nesting.")


def _depth(value: Any) -> int:
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        each, depth = waiting.pop()
        if isinstance(each, dict | list):
            deepest = max(deepest, depth)
            waiting.extend((inner, depth + 1) for inner in (each.values() if isinstance(each, dict) else each))
    return deepest


def _check_characters(value: Any, path: str) -> None:
    if isinstance(value, str):
        check_surrogates(value, path)
    elif isinstance(value, dict):
        for name, inner in value.items():
            check_surrogates(name, path)
            _check_characters(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_characters(inner, f"{path}[{index}]")


def _refuse_constant(name: str) -> NoReturn:
    raise RowFault(ProblemCode.MALFORMED_JSON, f"It holds {name}, which is not JSON.", "Use null or a number.")


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= (value := int(digits)) < 2**64:
        message = f"It holds a whole number of {len(digits)} digits, beyond 64 bits."
        raise RowFault(ProblemCode.MALFORMED_JSON, message, "Write it as a text.")
    return value


def _real(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        message = f"It holds the number {digits[:40]}, which is beyond what a number can be."
        raise RowFault(ProblemCode.MALFORMED_JSON, message, "Write it as a text.")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                message = f"The column `{name[:60]}` stands twice in it."
                raise RowFault(ProblemCode.DUPLICATE_COLUMN, message, "Keep one of the two.", field=name[:60])
            seen.add(name)
    return unique


DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique_keys, parse_constant=_refuse_constant, parse_int=_integer, parse_float=_real
)
