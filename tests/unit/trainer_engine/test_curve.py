"""The points that are kept of a run: few, spread over all of it, and the same after a resume."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from services.trainer.engine.curve import MOST, Point, add_point, column


def curve_of(steps: int, *, first: int = 1, points: list[Point] | None = None) -> list[Point]:
    """Returns the points after some steps, going on from others."""
    kept = [list(point) for point in points or ()]
    for step in range(first, steps + 1):
        add_point(kept, [step, 1.0 / step])
    return kept


def test_a_short_run_keeps_every_step() -> None:
    """Nothing is dropped before there are too many."""
    assert column(curve_of(MOST), 0) == [(step, step) for step in range(1, MOST + 1)]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5000))
def test_a_long_run_keeps_some_of_all_of_it(steps: int) -> None:
    """At most so many points, evenly spread, the first and the last step among them."""
    kept = [int(point[0]) for point in curve_of(steps)]
    assert len(kept) <= MOST + 1
    assert kept[0] == 1
    assert kept[-1] == steps
    gaps = {later - earlier for earlier, later in pairwise(kept[:-1])}
    assert len(gaps) <= 1


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 3000), st.data())
def test_a_resumed_run_keeps_what_an_unbroken_one_keeps(steps: int, data: st.DataObject) -> None:
    """Which points stay follows from the step alone."""
    broken = data.draw(st.integers(1, steps - 1))
    assert curve_of(steps, first=broken + 1, points=curve_of(broken)) == curve_of(steps)
