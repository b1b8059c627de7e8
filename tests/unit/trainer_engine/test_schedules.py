"""Learning rates: warm-up, peak and fall."""

import math

import pytest

from services.trainer.engine.schedules import learning_rate
from tuneforge.specs.spec import LearningRateSchedule as Schedule


def rates(schedule: Schedule, *, warmup_ratio: float, total_steps: int = 10) -> list[float]:
    """Returns the rates of all steps, with a peak of 1."""
    return [
        learning_rate(step, total_steps, peak=1.0, warmup_ratio=warmup_ratio, schedule=schedule)
        for step in range(1, total_steps + 1)
    ]


def test_the_rate_rises_linearly_to_its_peak() -> None:
    """The rate of warm-up step k is k / (steps + 1) of the peak, which the step after the warm-up has."""
    assert rates(Schedule.CONSTANT, warmup_ratio=0.3) == pytest.approx([0.25, 0.5, 0.75] + [1.0] * 7)


def test_a_line_falls_evenly_and_its_last_step_still_learns() -> None:
    """Without warm-up the first step has the peak and the last step one tenth of it."""
    assert rates(Schedule.LINEAR, warmup_ratio=0.0) == pytest.approx([1.0 - step / 10 for step in range(10)])


def test_a_cosine_falls_by_half_in_the_middle() -> None:
    """The cosine follows (1 + cos(pi * progress)) / 2."""
    expected = [0.5 * (1 + math.cos(math.pi * step / 10)) for step in range(10)]
    assert rates(Schedule.COSINE, warmup_ratio=0.0) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", list(Schedule))
@pytest.mark.parametrize("total_steps", [1, 2, 3, 20])
@pytest.mark.parametrize("warmup_ratio", [0.0, 0.05, 0.99])
def test_no_step_is_wasted(schedule: Schedule, total_steps: int, warmup_ratio: float) -> None:
    """Every rate is above 0 and at most the peak, and one step has the peak."""
    found = rates(schedule, warmup_ratio=warmup_ratio, total_steps=total_steps)
    assert all(0 < rate <= 1 for rate in found)
    assert max(found) == 1
