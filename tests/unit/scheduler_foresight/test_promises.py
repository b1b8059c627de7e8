"""Promises held against what came: how good they were, and what that does to the next ones."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.foresight.promises import (
    FEWEST,
    Event,
    Outcome,
    Promise,
    Quality,
    Source,
    Span,
    outcome_of,
    quality,
    widened,
)

HOUR_MS = 3_600_000


def promise(expected_s: float, real_s: float | None, *, told: Span | None = None, make_ms: int = 0) -> Promise:
    """Returns a promise with an interval of a tenth to both sides, and what came of it."""
    raw = around(make_ms, expected_s)
    told = told or raw
    real_ms = None if real_s is None else make_ms + round(real_s * 1000)
    outcome = Outcome.OPEN if real_ms is None else outcome_of(told, real_ms)
    return Promise(
        job=1, project="p", event=Event.END, source=Source.CREATION, make_ms=make_ms, raw=raw, told=told,
        real_ms=real_ms, outcome=outcome,
    )  # fmt: skip


def around(now_ms: int, expected_s: float) -> Span:
    """Returns an interval of a tenth to both sides."""
    wait_ms = round(expected_s * 1000)
    return Span(
        expected_ms=now_ms + wait_ms,
        earliest_ms=now_ms + round(0.9 * wait_ms),
        latest_ms=now_ms + round(1.1 * wait_ms),
    )


def test_an_outcome_is_early_kept_or_late() -> None:
    """Both ends of an interval belong to it."""
    told = Span(expected_ms=10, earliest_ms=5, latest_ms=20)
    assert [outcome_of(told, moment) for moment in (4, 5, 20, 21)] == ["EARLY", "KEPT", "KEPT", "LATE"]


def test_a_badly_calibrated_estimate_becomes_better() -> None:
    """Jobs take three times what was said: of the raw intervals hardly one is kept, of the widened ones most are."""
    chance = random.Random(7)
    history: list[Promise] = []
    kept_raw = kept_told = 0
    errors_raw, errors_told = [], []
    for number in range(300):
        expected_s = chance.uniform(60, 7200)
        real_s = expected_s * 3 * chance.lognormvariate(0, 0.25)
        raw = around(0, expected_s)
        told = widened(raw, 0, quality(history[-200:], 0))
        history.append(promise(expected_s, real_s, told=told))
        if number >= 100:
            kept_raw += outcome_of(raw, round(real_s * 1000)) is Outcome.KEPT
            kept_told += outcome_of(told, round(real_s * 1000)) is Outcome.KEPT
            errors_raw.append(abs(expected_s - real_s))
            errors_told.append(abs(told.expected_ms / 1000 - real_s))
    assert kept_raw / 200 < 0.05
    assert 0.7 <= kept_told / 200 <= 0.95
    assert sum(errors_told) < 0.4 * sum(errors_raw)
    found = quality(history[-200:], 0)
    assert found.median_ratio == pytest.approx(3, rel=0.1)
    assert found.low_ratio < found.median_ratio < found.high_ratio


def test_good_promises_stay_as_they_are() -> None:
    """Where reality lies inside the intervals nothing moves by more than the scatter."""
    chance = random.Random(3)
    found = quality([promise(600, 600 * chance.uniform(0.97, 1.03)) for _ in range(50)], 0)
    assert found.kept_share == 1.0
    told = widened(around(0, 600), 0, found)
    assert told.expected_ms == pytest.approx(600_000, rel=0.02)
    assert told.latest_ms - told.earliest_ms == pytest.approx(120_000, rel=0.03)


def test_few_promises_change_nothing() -> None:
    """Below the fewest the interval is told as it is; void and open ones do not count."""
    late = [promise(60, 600) for _ in range(FEWEST - 1)]
    open_one = promise(60, None)
    found = quality([*late, open_one], 0)
    assert (found.decided, found.is_applied) == (FEWEST - 1, False)
    assert widened(around(0, 60), 0, found) == around(0, 60)
    assert quality([], 0) == Quality()


def test_what_is_overdue_counts_with_its_wait_so_far() -> None:
    """A promise that is late and has not come yet is no missing value: else only the lucky ones would count."""
    told = around(0, 60)
    overdue = Promise(
        job=1, project="p", event=Event.START, source=Source.CREATION, make_ms=0, raw=told, told=told,
        outcome=Outcome.LATE,
    )  # fmt: skip
    assert overdue.ratio(now_ms=618_000) == pytest.approx(10)
    assert quality([overdue], 618_000).median_ratio == pytest.approx(10)


@given(
    ratios=st.lists(st.floats(0.01, 100), min_size=FEWEST, max_size=60),
    expected_s=st.floats(0, 1e6),
    now_ms=st.integers(0, 10**12),
)
def test_intervals_are_in_order_and_never_begin_in_the_past(
    ratios: list[float], expected_s: float, now_ms: int
) -> None:
    """Whatever was measured, earliest <= expected <= latest and none lies before now."""
    found = quality([promise(1000, 1000 * ratio) for ratio in ratios], 0)
    told = widened(around(now_ms, expected_s), now_ms, found)
    assert now_ms <= told.earliest_ms <= told.expected_ms <= told.latest_ms
