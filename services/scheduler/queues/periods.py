"""Periods of the calendar, in UTC, in each of which a budget may be spent anew. Pure.

They begin at whole hours, as the hours do by which device time is kept, so that each hour is of one period.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum


class Period(StrEnum):
    """How long a budget lasts."""

    UNKNOWN = "UNKNOWN"
    """One that this release does not know; it is refused."""
    DAY = "DAY"
    WEEK = "WEEK"
    """From Monday on."""
    MONTH = "MONTH"


LONGEST_DAYS = {Period.DAY: 1, Period.WEEK: 7, Period.MONTH: 31}


def bounds(period: Period, now_ms: int) -> tuple[int, int]:
    """Returns when the period of a moment began and when the next one begins, in milliseconds since 1970."""
    day = datetime.fromtimestamp(now_ms // 1000, UTC).replace(hour=0, minute=0, second=0)
    match period:
        case Period.WEEK:
            start = day - timedelta(days=day.weekday())
            end = start + timedelta(days=7)
        case Period.MONTH:
            start = day.replace(day=1)
            end = (start + timedelta(days=32)).replace(day=1)
        case _:
            start, end = day, day + timedelta(days=1)
    return round(start.timestamp()) * 1000, round(end.timestamp()) * 1000


def shown(moment_ms: int) -> str:
    """Returns a moment as a person reads it."""
    return f"{datetime.fromtimestamp(moment_ms // 1000, UTC):%Y-%m-%d %H:%M} UTC"
