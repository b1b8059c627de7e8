"""Amounts of processor and memory as people write them: 2, "2", "2000m", "1.5"; "1Gi", "2048Mi", "2G", 1073741824.

The spellings are those of Kubernetes. `M` is a million bytes and `Mi` 1048576; a lower-case `m` is a thousandth.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

CPU_FORM = 'cores, e.g. 2, "2", "0.5" or "2000m" (thousandths of a core)'
MEMORY_FORM = 'bytes, e.g. "1Gi", "2048Mi", "2G" or 1073741824'

_MAX = 2**63 - 1
_AMOUNT = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))([A-Za-z]*)", re.ASCII)
_BYTES = {"": 1}
_BYTES |= {f"{letter}i": 1024**power for power, letter in enumerate("KMGTPE", 1)}
_BYTES |= {letter: 1000**power for power, letter in enumerate(("k", "M", "G", "T", "P", "E"), 1)}


class NotAQuantity(ValueError):
    """The text is no amount; the message says what one looks like."""


def cpu_millis(value: float | str) -> int:
    """Returns a share of the processor in thousandths of a core, >= 1.

    Raises:
        NotAQuantity: It is none, or not above 0.
    """
    number, unit = _split(value, CPU_FORM)
    if unit not in ("", "m"):
        raise NotAQuantity(f"is {value!r}: use {CPU_FORM}")
    return _whole(number * (1 if unit == "m" else 1000), value, CPU_FORM)


def memory_bytes(value: float | str) -> int:
    """Returns an amount of memory in bytes, >= 1.

    Raises:
        NotAQuantity: It is none, or not above 0.
    """
    number, unit = _split(value, MEMORY_FORM)
    if unit not in _BYTES:
        raise NotAQuantity(f"is {value!r}: use {MEMORY_FORM}")
    return _whole(number * _BYTES[unit], value, MEMORY_FORM)


def _split(value: float | str, form: str) -> tuple[Decimal, str]:
    text = value.strip() if isinstance(value, str) else repr(value)
    found = _AMOUNT.fullmatch(text) if len(text) <= 64 and not isinstance(value, bool) else None
    if found is None:
        try:
            is_small_float = isinstance(value, float) and Decimal(text).is_finite()  # 1e-05
        except InvalidOperation:
            is_small_float = False
        if not is_small_float:
            raise NotAQuantity(f"is {_short(value)}: use {form}")
        return Decimal(text), ""
    return Decimal(found[1]), found[2]


def _whole(amount: Decimal, value: float | str, form: str) -> int:
    if amount <= 0:
        raise NotAQuantity(f"is {_short(value)}: use an amount above 0 of {form}")
    if amount > _MAX:
        raise NotAQuantity(f"is {_short(value)}, more than there can be: use {form}")
    return max(1, int(amount.to_integral_value(rounding="ROUND_CEILING")))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
