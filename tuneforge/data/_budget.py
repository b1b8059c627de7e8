"""What one rendering of a chat template may spend: steps, and characters or elements in what it makes.

Counted, not timed, so a template is refused on every machine alike.
"""

import re
import threading
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from typing import Any, Final

import jinja2.exceptions
import jinja2.utils

_STEPS: Final = 100_000
"""Iterations and calls that a rendering may take beside one for each character it is given: templates take some ten
for a turn."""
_SIZE: Final = 4 * 1024 * 1024
"""Largest text or list that may be made of a small input, in characters or elements."""
_GROWTH: Final = 64
"""Times the input that a text or list may become: far above what a template adds to a turn."""
_TOTAL: Final = 256 * 1024 * 1024
"""Characters and elements that may be handled in all, some seconds' work; beside `_GROWTH` times the input."""
_DIGITS: Final = re.compile(r"[0-9]+")
_CONTAINERS: Final = (list, tuple, dict, set, frozenset, KeysView, ValuesView, ItemsView, jinja2.utils.Namespace)


class Budget(threading.local):
    """What is left of the limits, for the rendering that this thread is at."""

    def __init__(self) -> None:
        self.begin(None)

    def begin(self, variables: Any) -> None:
        """Starts a rendering of these variables."""
        self._limit, self._total, self._steps = 1 << 62, 1 << 62, 1 << 62
        size = self.measured(variables)
        self._limit = max(_SIZE, _GROWTH * size)
        self._total = _TOTAL + _GROWTH * size
        self._steps = _STEPS + size

    def step(self) -> None:
        """Counts an iteration, call or filter."""
        self._steps -= 1
        if self._steps < 0:
            raise jinja2.exceptions.SecurityError("it takes too many steps, as an endless loop would")

    def fits(self, size: int) -> None:
        """Refuses a text or list of this size, before it is made."""
        if size > self._limit:
            message = f"it makes a text or list of more than {self._limit} characters or elements"
            raise jinja2.exceptions.SecurityError(message)

    def spend(self, value: Any) -> None:
        """Counts a text or a container, without what is in it."""
        if isinstance(value, str | list | tuple | dict | range):
            self.spend_size(len(value))

    def spend_size(self, size: int) -> None:
        """Counts a text or a container of so many characters or elements."""
        self.fits(size)
        self._total -= size
        if self._total < 0:
            raise jinja2.exceptions.SecurityError("it handles too much text in all, as an endless loop would")

    def measured(self, value: Any) -> int:
        """Returns about how long a value is as text, what is in it twice twice; refuses one that is too large."""
        size, waiting = 0, [value]
        while waiting:
            part = waiting.pop()
            if isinstance(part, str):
                size += len(part)
            elif isinstance(part, _CONTAINERS):
                if isinstance(part, jinja2.utils.Namespace):
                    part = object.__getattribute__(part, "_Namespace__attrs")
                size += len(part)
                waiting.extend(part)
                if isinstance(part, Mapping):
                    waiting.extend(part.values())
            else:
                size += 1
            if size > self._limit:
                self.fits(size)
        self._total -= size
        if self._total < 0:
            raise jinja2.exceptions.SecurityError("it handles too much text in all, as an endless loop would")
        return size

    def counted(self, values: Iterable[Any]) -> Iterator[Any]:
        """Yields values and counts a step for each."""
        for value in values:
            self.step()
            yield value

    def concat(self, pieces: Iterable[str]) -> str:
        """Joins pieces of output."""
        kept, size = [], 0
        for piece in pieces:
            size += len(piece)
            self.fits(size)
            kept.append(piece)
        self.spend_size(size)
        return "".join(kept)

    def check_percent(self, text: str, values: Any) -> None:
        """Refuses `text % values` when it would be too large; counts generously."""
        sizes = [self.measured(value) for value in (values if isinstance(values, tuple) else (values,))]
        largest = max((abs(v) for v in _parts(values) if isinstance(v, int)), default=0) if "*" in text else 0
        widths = sum(_number(digits) for digits in _DIGITS.findall(text)) if "%" in text else 0
        uses = text.count("%") if isinstance(values, Mapping) else 1
        self.fits(len(text) + widths + text.count("*") * largest + uses * sum(sizes))

    def check_spec(self, spec: str, value: Any) -> None:
        """Refuses a field of `str.format` that would be too large."""
        self.fits(self.measured(value) + sum(_number(digits) for digits in _DIGITS.findall(spec)))

    def check_growth(self, name: str, values: Sequence[Any], named: Mapping[str, Any]) -> None:
        """Refuses a method of texts, or a filter, when its result would be too large.

        Args:
            name: the method or filter.
            values: the text it is used on, then its arguments.
            named: its arguments that are given by name.
        """
        given = [*values, *named.values()]
        numbers = sum(abs(int(value)) for value in given[1:] if isinstance(value, int | float) and abs(value) < 1e300)
        text, *others = values or ("",)
        longest = max((len(value) for value in (*others, *named.values()) if isinstance(value, str)), default=0)
        length = len(text) if isinstance(text, str | list | tuple) else 1
        if name in {"center", "ljust", "rjust", "zfill", "batch"}:
            self.fits(numbers)
        elif name == "tojson":
            self.fits(self.measured(text) * max(1, numbers))
        elif name == "replace":
            old = str(others[0]) if others else str(named.get("old", ""))
            self.fits(length + (str(text).count(old) * longest if longest > len(old) else 0))
        elif name == "expandtabs":
            self.fits(length + str(text).count("\t") * max(8, numbers))
        elif name == "indent":
            self.fits(length + (len(str(text).splitlines()) + 1) * max(4, numbers, longest))
        elif name == "wordwrap":
            self.fits(length + length * longest)
        elif name == "join":
            self.fits(sum(self.measured(value) for value in (text, *others)) + longest * length)
        elif name == "format":
            self.check_percent(str(text), dict(named) if named else tuple(others))


def _parts(values: Any) -> Iterable[Any]:
    if isinstance(values, Mapping):
        return values.values()
    return values if isinstance(values, tuple) else (values,)


def _number(digits: str) -> int:
    return int(digits) if len(digits) < 12 else 10**12
