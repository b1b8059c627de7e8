"""The loss curve in characters."""

import math

from hypothesis import given
from hypothesis import strategies as st

from tuneforge.cli.curve import Canvas, draw


def test_a_canvas_sets_the_dots_of_braille_characters() -> None:
    """Each character has two columns of four dots."""
    canvas = Canvas(2, 1)
    canvas.dot(0, 0)
    canvas.dot(3, 3)
    canvas.dot(99, 99)
    assert canvas.rows() == ["⠁⢀"]


def test_a_falling_line_goes_from_the_upper_left_to_the_lower_right() -> None:
    """Scale, curve and range stand where a reader looks for them."""
    assert draw([(0, 3.0), (100, 1.0)], 20, 3) == [
        "3.00 ┤⠉⠒⠤⢄⡀⠀⠀⠀⠀⠀⠀⠀⠀⠀",
        "     ┤⠀⠀⠀⠀⠈⠉⠒⠤⣀⡀⠀⠀⠀⠀",
        "1.00 ┤⠀⠀⠀⠀⠀⠀⠀⠀⠀⠈⠑⠒⠤⣀",
        "      0          100",
    ]


def test_a_run_that_has_just_begun_fills_the_left_only() -> None:
    """The width stands for the whole run."""
    rows = draw([(1, 2.0), (10, 1.0)], 40, 4, x_range=(1, 100))
    assert all(set(row[20:]) <= {"⠀"} for row in rows[:-1])
    assert rows[-1].split() == ["1", "100"]


def test_what_is_not_a_number_is_left_out() -> None:
    """A loss that ran away does not spoil the curve before it."""
    assert draw([(1, 2.0), (2, math.nan), (3, math.inf), (4, 1.0)], 30, 2) == draw([(1, 2.0), (4, 1.0)], 30, 2)
    assert draw([(1, math.nan)], 30, 2) == []
    assert draw([], 30, 2) == []


def test_a_flat_curve_stands_in_the_middle() -> None:
    """Equal values are drawn without a division by zero."""
    rows = draw([(1, 1.0), (2, 1.0)], 30, 3)
    assert set(rows[0][6:]) == {"⠀"}
    assert set(rows[1][6:]) != {"⠀"}


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=50),
    st.integers(20, 200),
    st.integers(2, 20),
)
def test_any_curve_keeps_its_size(values: list[float], width: int, height: int) -> None:
    """Whatever comes, the drawing has the height that was asked for and is not wider."""
    rows = draw(list(enumerate(values)), width, height)
    assert len(rows) in {0, height + 1}
    assert all(len(row) <= max(width, 30) for row in rows)
