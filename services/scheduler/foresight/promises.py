"""How good promises were, and intervals that are widened by it. Pure.

The measure is the ratio of the real wait to the expected one, before any correction, so that a correction does not feed
on itself. Of the newest decided promises the median ratio shifts what is expected, and the ratios that one in ten lay
below and one in ten above widen the interval; it is never made narrower than it was.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

FEWEST = 8
"""Decided promises from which on they count."""
NEWEST = 200
"""Decided promises that count: nodes, jobs and this program change."""
FLOOR_MS = 2_000
"""Added to both waits: two seconds instead of one say nothing about hours."""
MOST = 50.0
"""Largest ratio that widens an interval, and one over the smallest: one job that was forgotten is no measure."""


class Event(StrEnum):
    """What a promise is about, spelt as in the contract without its prefix."""

    START = "START"
    END = "END"


class Source(StrEnum):
    """Who was promised something."""

    CREATION = "CREATION"
    EXPLANATION = "EXPLANATION"
    SIMULATION = "SIMULATION"


class Outcome(StrEnum):
    """What became of a promise."""

    OPEN = "OPEN"
    KEPT = "KEPT"
    EARLY = "EARLY"
    LATE = "LATE"
    VOID = "VOID"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A moment that is not known exactly; milliseconds since 1970."""

    expected_ms: int
    earliest_ms: int
    latest_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What was said, and what came."""

    id: int = 0
    """0: not stored yet."""
    job: int | None
    """Number of the job; None: simulated, and not created so far."""
    project: str
    event: Event
    source: Source
    make_ms: int
    raw: Span
    """Before any correction."""
    told: Span
    digest: str = ""
    """Of a simulated job's spec, so that it is known again when it is created."""
    real_ms: int | None = None
    outcome: Outcome = Outcome.OPEN

    def ratio(self, now_ms: int) -> float:
        """Returns the real wait over the expected one; of what has not happened yet, the wait so far."""
        real_ms = self.real_ms if self.real_ms is not None else now_ms
        return (max(0, real_ms - self.make_ms) + FLOOR_MS) / (max(0, self.raw.expected_ms - self.make_ms) + FLOOR_MS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How good promises of one kind were."""

    decided: int = 0
    kept_share: float = 0.0
    median_ratio: float = 1.0
    low_ratio: float = 1.0
    """One in ten lay below."""
    high_ratio: float = 1.0
    """One in ten lay above."""

    @property
    def is_applied(self) -> bool:
        """Whether new intervals are widened by it."""
        return self.decided >= FEWEST


UNKNOWN = Quality()


def outcome_of(told: Span, real_ms: int) -> Outcome:
    """Returns what became of a promise whose moment has come."""
    if real_ms < told.earliest_ms:
        return Outcome.EARLY
    return Outcome.KEPT if real_ms <= told.latest_ms else Outcome.LATE


def quality(promises: Sequence[Promise], now_ms: int) -> Quality:
    """Returns how good decided promises of one kind were.

    Args:
        promises: Of one event, KEPT, EARLY or LATE.
        now_ms: This moment.
    """
    decided = [each for each in promises if each.outcome in {Outcome.KEPT, Outcome.EARLY, Outcome.LATE}]
    if not decided:
        return UNKNOWN
    ratios = sorted(min(MOST, max(1 / MOST, each.ratio(now_ms))) for each in decided)
    count = len(ratios)
    # One rank further out than the plain quantile: of few promises the next one may lie beyond all of them.
    outer = min(count, math.ceil(0.9 * (count + 1)))
    return Quality(
        decided=count,
        kept_share=sum(each.outcome is Outcome.KEPT for each in decided) / count,
        median_ratio=statistics.median(ratios),
        low_ratio=ratios[count - outer],
        high_ratio=ratios[outer - 1],
    )


def widened(span: Span, now_ms: int, found: Quality) -> Span:
    """Returns an interval shifted and widened by how far promises were off; unchanged while too few are known."""
    if not found.is_applied:
        return span

    def moved(moment_ms: int, ratio: float) -> int:
        return now_ms + max(0, round((max(0, moment_ms - now_ms) + FLOOR_MS) * ratio) - FLOOR_MS)

    expected = moved(span.expected_ms, found.median_ratio)
    earliest = min(moved(span.earliest_ms, found.median_ratio), moved(span.expected_ms, found.low_ratio))
    latest = max(moved(span.latest_ms, found.median_ratio), moved(span.expected_ms, found.high_ratio))
    return Span(expected_ms=expected, earliest_ms=min(expected, earliest), latest_ms=max(expected, latest))
