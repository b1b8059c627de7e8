"""Prometheus' text format 0.0.4, written without a library: the SDK has none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Kind = Literal["gauge", "counter", "histogram"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One number of a family."""

    name: str
    """The family's name; of a histogram with `_bucket`, `_sum` or `_count`."""
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Family:
    """All samples of one metric."""

    name: str
    kind: Kind
    help: str
    samples: Sequence[Sample]


@dataclass(slots=True)
class Histogram:
    """Counts observations below bounds."""

    bounds: Sequence[float]
    """Upper bounds, rising; infinity comes by itself."""
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Counts one observation."""
        self.counts[sum(bound < value for bound in self.bounds)] += 1
        self.total += value

    def samples(self, name: str, labels: Mapping[str, str]) -> list[Sample]:
        """Returns its samples; none before the first observation."""
        if not sum(self.counts):
            return []
        below, samples = 0, []
        for bound, count in zip((*self.bounds, math.inf), self.counts, strict=True):
            below += count
            samples.append(Sample(f"{name}_bucket", {**labels, "le": number(bound)}, below))
        return [*samples, Sample(f"{name}_count", labels, below), Sample(f"{name}_sum", labels, self.total)]


def page(families: Iterable[Family]) -> str:
    """Returns the page that a scraper reads; a family without samples is declared all the same."""
    lines = []
    for family in families:
        lines += [f"# HELP {family.name} {_escaped(family.help)}", f"# TYPE {family.name} {family.kind}"]
        lines += [_line(sample) for sample in family.samples]
    return "".join(f"{line}\n" for line in lines)


def number(value: float) -> str:
    """Returns a number as the format writes it."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value))


def _line(sample: Sample) -> str:
    labels = ",".join(f'{name}="{_escaped(value, quotes=True)}"' for name, value in sample.labels.items())
    return f"{sample.name}{{{labels}}} {number(sample.value)}" if labels else f"{sample.name} {number(sample.value)}"


def _escaped(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text
