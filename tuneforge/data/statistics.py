"""What a data set is like, counted while its rows go by: sizes, turns, labels and sides, in bounded memory."""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tuneforge.data.formats import ParsedRow
from tuneforge.data.shapes import RowShape
from tuneforge.data.split import Side

_STEPS: Final = 16
"""Classes of length for each doubling, so that a quantile is at most 5 % off."""
_MOST_LABELS: Final = 1000
"""Labels that are counted apart; a column with more of them is no column of classes."""
LABELS_TOLD: Final = 100
"""Labels in the result."""
QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Sizes of rows."""

    smallest: int = 0
    largest: int = 0
    total: int = 0
    quantiles: tuple[int, ...] = ()
    """At `QUANTILES`, each at most 5 % off; empty without rows."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What was counted."""

    rows: int
    sides: Mapping[Side, int]
    """Rows of each side."""
    duplicates: int
    """Rows whose content stands in an earlier row."""
    characters: Distribution
    """Characters in the texts of a row."""
    target_characters: Distribution
    """Characters of what is learned: completion, output, assistant's turns, text."""
    turns: Mapping[int, int]
    """Turns of a conversation -> rows; 64 stands for 64 and more."""
    labels: Mapping[str, int]
    """Label -> rows, the most frequent 100."""
    num_labels: int
    """Different labels; 1000 stands for 1000 and more."""
    with_tools: int
    """Rows with tools or tool calls."""


class Lengths:
    """Sizes, counted by classes that grow with the size."""

    def __init__(self) -> None:
        self._classes: Counter[int] = Counter()
        self._smallest: int | None = None
        self._largest = self._total = self._count = 0

    def add(self, length: int) -> None:
        """Counts a size, >= 0."""
        self._classes[round(math.log2(length) * _STEPS) if length else -1] += 1
        self._smallest = length if self._smallest is None else min(self._smallest, length)
        self._largest = max(self._largest, length)
        self._total += length
        self._count += 1

    def result(self) -> Distribution:
        """Returns what was counted."""
        if self._smallest is None:
            return Distribution()
        quantiles = tuple(self._quantile(share) for share in QUANTILES)
        return Distribution(smallest=self._smallest, largest=self._largest, total=self._total, quantiles=quantiles)

    def _quantile(self, share: float) -> int:
        wanted, seen = math.ceil(share * self._count), 0
        for number in sorted(self._classes):
            seen += self._classes[number]
            if seen >= wanted:
                middle = 0 if number < 0 else round(2 ** (number / _STEPS))
                return min(max(middle, self._smallest or 0), self._largest)
        return self._largest


class Census:
    """Counts rows one by one."""

    def __init__(self) -> None:
        self._sides: Counter[Side] = Counter()
        self._characters, self._targets = Lengths(), Lengths()
        self._turns: Counter[int] = Counter()
        self._labels: Counter[str] = Counter()
        self._with_tools = 0

    def add(self, row: ParsedRow, side: Side) -> None:
        """Counts a row with content."""
        assert row.content is not None
        self._sides[side] += 1
        self._characters.add(sum(map(len, texts_of(row.content))))
        messages = row.content.get("messages")
        if messages is not None:
            self._turns[min(64, len(messages))] += 1
            self._with_tools += "tools" in row.content or any("tool_calls" in turn for turn in messages)
        if (target := _target_length(row)) is not None:
            self._targets.add(target)
        if "label" in row.content:
            label = str(row.content["label"])
            if label in self._labels or len(self._labels) < _MOST_LABELS:
                self._labels[label] += 1

    def result(self, duplicates: int) -> Statistics:
        """Returns what was counted.

        Args:
            duplicates: rows whose content stands in an earlier row.
        """
        return Statistics(
            rows=self._sides.total(),
            sides=dict(self._sides),
            duplicates=duplicates,
            characters=self._characters.result(),
            target_characters=self._targets.result(),
            turns=dict(sorted(self._turns.items())),
            labels=dict(self._labels.most_common(LABELS_TOLD)),
            num_labels=len(self._labels),
            with_tools=self._with_tools,
        )


def texts_of(value: Any) -> Iterator[str]:
    """Yields the texts in the values of a row's content."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if name not in {"role", "type", "sha256", "media_type"}:
                yield from texts_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_of(inner)


def _target_length(row: ParsedRow) -> int | None:
    content = row.content or {}
    match row.shape:
        case RowShape.PROMPT_COMPLETION:
            return len(content["completion"])
        case RowShape.INSTRUCTION:
            return len(content["output"])
        case RowShape.TEXT:
            return len(content["text"])
        case RowShape.MESSAGES | RowShape.SHAREGPT:
            return sum(len(turn["content"]) for turn in content["messages"] if turn["role"] == "assistant")
        case _:
            return None
