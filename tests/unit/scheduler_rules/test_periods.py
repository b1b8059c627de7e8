"""Periods of budgets: those of the calendar in UTC, without a gap and without an overlap."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.queues.budgets import HOUR_MS
from services.scheduler.queues.periods import LONGEST_DAYS, Period, bounds

PERIODS = [Period.DAY, Period.WEEK, Period.MONTH]


def ms(*parts: int) -> int:
    """Returns a moment in UTC."""
    return round(datetime(*parts, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        (Period.DAY, (2028, 2, 29), (2028, 3, 1)),
        (Period.WEEK, (2028, 2, 28), (2028, 3, 6)),
        (Period.MONTH, (2028, 2, 1), (2028, 3, 1)),
    ],
)
def test_a_leap_day(period: Period, start: tuple[int, ...], end: tuple[int, ...]) -> None:
    """The 29th of February 2028 is a Tuesday."""
    assert bounds(period, ms(2028, 2, 29, 13, 5)) == (ms(*start), ms(*end))


@given(period=st.sampled_from(PERIODS), now_ms=st.integers(ms(2000, 1, 1), ms(2100, 1, 1)))
def test_each_moment_is_in_one_period(period: Period, now_ms: int) -> None:
    """A period begins at a whole hour, has all of its moments, and ends where the next one begins."""
    start_ms, end_ms = bounds(period, now_ms)
    assert start_ms <= now_ms < end_ms
    assert start_ms % HOUR_MS == end_ms % HOUR_MS == 0
    assert end_ms - start_ms <= LONGEST_DAYS[period] * 24 * HOUR_MS
    assert bounds(period, start_ms) == bounds(period, end_ms - 1) == (start_ms, end_ms)
    assert bounds(period, end_ms)[0] == end_ms
