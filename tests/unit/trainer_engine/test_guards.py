"""What counts as an explosion, and what does not."""

from collections.abc import Sequence

import pytest

from services.trainer.engine.guards import check_step
from services.trainer.engine.run import Progress
from services.trainer.engine.training_task import TrainingFault
from tuneforge.specs.guards import with_guard_defaults
from tuneforge.specs.spec import Guards

FALLING = [4.0 * 0.9**step for step in range(30)]
"""To 0.19."""


def ends_at(losses: Sequence[float], guards: Guards | None = None, *, grad_norm: float = 1.0) -> int | None:
    """Returns the step at which a run with these losses is ended."""
    progress = Progress()
    for loss in losses:
        progress.step += 1
        try:
            check_step(with_guard_defaults(guards or Guards()), progress, loss, grad_norm)
        except TrainingFault:
            return progress.step
    return None


@pytest.mark.parametrize(
    "losses",
    [
        FALLING,
        [*FALLING, 12.0, *FALLING[-5:], 12.0, 11.0, *FALLING[-5:]],
        [*FALLING, *[3.9] * 30],
        [4.0] * 5 + [11.0] * 5 + [4.0] * 5,
        [4.0, 11.0, 11.0, 11.0, 11.0, 11.0],
        [2.0, *[0.0] * 20, *[1.9] * 5],
    ],
    ids=["falls", "garbage in one row", "not worse than the beginning", "below the factor", "at once", "from zero"],
)
def test_no_explosion(losses: list[float]) -> None:
    """What comes back, or was so at the beginning, is none."""
    assert ends_at(losses) is None


def test_an_explosion_is_seen_after_three_steps() -> None:
    """Three steps in a row far above what was usual, and above the beginning."""
    assert ends_at([*FALLING, 11.0, 10.5, 11.2, 10.9]) == len(FALLING) + 3


def test_a_slow_explosion_is_seen() -> None:
    """A loss that grows by a tenth a step is seen when it is three times what it had come down to."""
    growing = [1.1**step for step in range(60)]
    end = ends_at([4.0, 2.0, 1.0, 1.0, 1.0, 1.0, *growing])
    assert end is not None
    assert 4.0 < growing[end - 7] < 8.0


def test_the_factor_decides() -> None:
    """A higher factor lets more pass, 0 everything."""
    losses = [1.0] * 20 + [5.0] * 5
    assert ends_at(losses) == 23
    assert ends_at(losses, Guards(loss_explosion_factor=6)) is None
    assert ends_at(losses, Guards(loss_explosion_factor=0)) is None


def test_no_gradient_counts_from_the_beginning_only() -> None:
    """Three first steps without a gradient end a run; 0 lets it go on."""
    assert ends_at([1.0] * 5, grad_norm=0.0) == 3
    assert ends_at([1.0] * 5, Guards(zero_gradient_steps=0), grad_norm=0.0) is None
    progress, guards = Progress(), with_guard_defaults(Guards())
    for norm in (0.0, 0.0, 1e-9, 0.0, 0.0, 0.0, 0.0):
        progress.step += 1
        check_step(guards, progress, 1.0, norm)
    assert progress.has_gradient
