"""A curve in characters: each Braille character is a grid of 2 x 4 dots."""

import math
from collections.abc import Sequence

Point = tuple[float, float]

# Bit of each dot in a Braille character, by (column, row from the top).
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_BLANK = 0x2800


class Canvas:
    """Dots on a grid of characters; later dots add to earlier ones."""

    def __init__(self, width: int, height: int) -> None:
        """Makes an empty canvas of `width` x `height` characters, each >= 1."""
        self.dots_wide, self.dots_high = width * 2, height * 4
        self._cells = [[0] * width for _ in range(height)]

    def dot(self, x: int, y: int) -> None:
        """Sets one dot, counted from the top left; one outside is ignored."""
        if 0 <= x < self.dots_wide and 0 <= y < self.dots_high:
            self._cells[y // 4][x // 2] |= _DOTS[x % 2][y % 4]

    def stroke(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Sets the dots of a straight line between two dots, each (x, y)."""
        length = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
        for part in range(length + 1):
            share = part / length
            self.dot(round(start[0] + (end[0] - start[0]) * share), round(start[1] + (end[1] - start[1]) * share))

    def rows(self) -> list[str]:
        """Returns the rows from the top."""
        return ["".join(chr(_BLANK + cell) for cell in row) for row in self._cells]


def draw(points: Sequence[Point], width: int, height: int, *, x_range: Point | None = None) -> list[str]:
    """Draws a curve with its scale at the left and its x range below.

    Points that are not finite are left out. Where several fall into one column of dots, their mean is drawn; the
    columns are joined by straight lines.

    Args:
        points: (x, y), ordered by x.
        width: Of the whole drawing in characters, >= 20.
        height: Of the curve in characters, >= 2; the drawing is one row higher.
        x_range: What the width stands for; None: the range of the points.
    """
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not finite:
        return []
    x_low, x_high = x_range or (finite[0][0], finite[-1][0])
    lowest, highest = min(y for _, y in finite), max(y for _, y in finite)
    labels = [_label(highest), _label(lowest)]
    margin = max(map(len, labels))
    canvas = Canvas(width - margin - 2, height)
    span = max(highest - lowest, 1e-12)
    previous: tuple[int, int] | None = None
    for column, mean in _columns(finite, (x_low, x_high), canvas.dots_wide):
        # A flat curve stands in the middle.
        share = (mean - lowest) / span if highest > lowest else 0.5
        here = (column, round((1 - share) * (canvas.dots_high - 1)))
        canvas.stroke(previous or here, here)
        previous = here
    rows = canvas.rows()
    edge = [labels[0], *[""] * (height - 2), labels[1]]
    drawn = [f"{label:>{margin}} ┤{row}" for label, row in zip(edge, rows, strict=True)]
    left, right = f"{x_low:g}", f"{x_high:g}"
    return [*drawn, f"{'':>{margin}}  {left}{right:>{max(1, width - margin - 2 - len(left))}}"]


def _columns(points: Sequence[Point], x_range: Point, count: int) -> list[tuple[int, float]]:
    """Returns (column of dots, mean y) for each column that has points."""
    x_low, x_high = x_range
    sums: dict[int, tuple[float, int]] = {}
    for x, y in points:
        share = (x - x_low) / (x_high - x_low) if x_high > x_low else 0.0
        column = round(share * (count - 1))
        total, number = sums.get(column, (0.0, 0))
        sums[column] = (total + y, number + 1)
    return [(column, total / number) for column, (total, number) in sorted(sums.items())]


def _label(value: float) -> str:
    return f"{value:.3g}" if abs(value) >= 100 or 0 < abs(value) < 0.01 else f"{value:.2f}"
