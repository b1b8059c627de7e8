"""Learning rates: warm-up, peak and fall."""

import math

import pytest

from services.trainer.engine.schedules import learning_rate
from tuneforge.specs.spec import LearningRateSchedule as Schedule
from tuneforge.specs.spec import Optimization


def rates(schedule: Schedule, *, warmup_ratio: float, total_steps: int = 10, **decay: float) -> list[float]:
    """Returns the rates of all steps, with a peak of 1."""
    optimization = Optimization(learning_rate=1.0, schedule=schedule, warmup_ratio=warmup_ratio, **decay)  # type: ignore[arg-type]
    return [learning_rate(step, total_steps, optimization) for step in range(1, total_steps + 1)]


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


def test_a_stable_rate_falls_at_the_end() -> None:
    """Warm-up, stable, decay: the last 40 % of the steps go down a line, and the last one still learns."""
    expected = [0.5, *[1.0] * 6, 0.75, 0.5, 0.25]
    assert rates(Schedule.WSD, warmup_ratio=0.1, decay_ratio=0.4) == pytest.approx(expected)


def test_a_rate_falls_in_steps() -> None:
    """Each two steps after the warm-up the rate is halved."""
    expected = [0.5, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.0625]
    assert rates(Schedule.STEP, warmup_ratio=0.1, decay_every_steps=2, decay_factor=0.5) == pytest.approx(expected)


def test_a_long_run_falls_in_steps() -> None:
    """The rate is that at the beginning, times the factor for each whole number of steps that were made."""
    falling = Optimization(
        learning_rate=1e-4, schedule=Schedule.STEP, warmup_ratio=0.0, decay_every_steps=500, decay_factor=0.9
    )
    after = [learning_rate(done + 1, 2000, falling) for done in (0, 499, 500, 1000)]
    assert after == pytest.approx([1e-4, 1e-4, 9e-5, 8.1e-5])


@pytest.mark.parametrize("schedule", list(Schedule))
@pytest.mark.parametrize("total_steps", [1, 2, 3, 20])
@pytest.mark.parametrize("warmup_ratio", [0.0, 0.05, 0.99])
def test_no_step_is_wasted(schedule: Schedule, total_steps: int, warmup_ratio: float) -> None:
    """Every rate is above 0 and at most the peak, and one step has the peak."""
    decay = {"decay_ratio": min(0.2, 1 - warmup_ratio), "decay_every_steps": 2, "decay_factor": 0.9}
    found = rates(schedule, warmup_ratio=warmup_ratio, total_steps=total_steps, **decay)
    assert all(0 < rate <= 1 for rate in found)
    assert max(found) == 1
