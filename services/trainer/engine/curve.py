"""What each step of a run gave, kept with its state so that the result can show the whole run: at most `MOST` points.

Which steps are kept follows from the number of the last one alone, so a resumed run keeps those of an unbroken one.
Times are not kept: they are in the events, and what is kept here goes into files whose bytes repeat with the run.
"""

from collections.abc import Sequence
from typing import Final

MOST: Final = 600
"""Most points; from there on every second one is dropped."""

Point = list[float]
"""Step, loss, learning rate, norm of the gradients, tokens; a list, since it is kept as JSON."""


def add_point(points: list[Point], point: Point) -> None:
    """Adds the point of the step after the last one; the last step is always there.

    Args:
        points: By step, ascending; changed in place.
        point: Its first number is the step, from 1.
    """
    step = int(point[0])
    stride = _stride(step)
    if stride != _stride(step - 1):
        points[:] = [each for each in points if (int(each[0]) - 1) % stride == 0]
    elif points and (int(points[-1][0]) - 1) % stride:
        points.pop()  # it was there as the last step alone
    points.append(point)


def column(points: Sequence[Point], number: int) -> list[tuple[float, float]]:
    """Returns (step, one of the numbers) of every point."""
    return [(point[0], point[number]) for point in points]


def _stride(step: int) -> int:
    """Returns the smallest power of two of which at most `MOST` steps up to this one are multiples, counted from 1."""
    stride = 1
    while (step + stride - 1) // stride > MOST:
        stride *= 2
    return stride
