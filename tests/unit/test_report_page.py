"""Reports stand alone, show what they are given as text, and can run nothing."""

import re

import pytest

from tuneforge.charts import BOTTOM, HEIGHT, TOP, Chart
from tuneforge.report_page import PREAMBLE, Section, report_page

HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)">'


def test_a_page_runs_and_loads_nothing() -> None:
    """Whatever stands in it is shown as text; the first thing it says is that nothing may run."""
    chart = Chart(title=HOSTILE, x_label=HOSTILE, y_label=HOSTILE, points=[(1, 2.0), (2, 1.0)])
    section = Section(
        title=HOSTILE, facts={HOSTILE: HOSTILE}, charts=[chart], table=[[HOSTILE], [HOSTILE]], text=HOSTILE
    )
    page = report_page(HOSTILE, [section])
    assert page.startswith(PREAMBLE)
    assert "default-src 'none'" in PREAMBLE
    tags = set(re.findall(r"<([a-z0-9]+)", page))
    assert not tags & {"script", "img", "link", "iframe", "object", "embed"}
    assert not re.search(r"https?://", page)


def test_empty_sections_are_left_out() -> None:
    """A section without content has no heading either."""
    page = report_page("Run", [Section(title="Nothing"), Section(title="Spec", text="{}")])
    assert "Nothing" not in page
    assert "<h2>Spec</h2><pre>{}</pre>" in page


def corners_of(chart: Chart) -> list[tuple[float, float]]:
    """Returns the corners of a chart's line on a page."""
    (line,) = re.findall(r'<polyline points="([^"]+)"', report_page("Run", [Section(title="Run", charts=[chart])]))
    corners = [corner.split(",") for corner in line.split()]
    return [(float(x), float(y)) for x, y in corners]


def test_a_line_goes_through_its_points() -> None:
    """A plot has one corner a point, from left to right, the higher value higher up."""
    chart = Chart(title="Loss", x_label="steps", y_label="nats", points=[(1, 4.0), (2, 2.0), (3, 1.0)])
    corners = corners_of(chart)
    assert len(corners) == 3
    assert [x for x, _ in corners] == sorted(x for x, _ in corners)
    assert [y for _, y in corners] == sorted(y for _, y in corners)


@pytest.mark.parametrize("values", [(-0.1, -1.0, -0.5), (0.5, -2.0, 1.0), (3.0, float("inf"), 1.0, float("nan"), 2.0)])
def test_a_line_stays_on_its_chart(values: tuple[float, ...]) -> None:
    """Rewards fall below nothing, and gradients in float16 overflow: what has a place is drawn there."""
    points = list(enumerate(values, start=1))
    corners = corners_of(Chart(title="Figure", x_label="steps", y_label="", points=points))
    finite = [value for value in values if abs(value) < float("inf")]
    assert len(corners) == len(finite)
    assert all(TOP <= y <= HEIGHT - BOTTOM for _, y in corners)
    by_value = sorted(zip(finite, corners, strict=True))
    assert [y for _, (_, y) in by_value] == sorted((y for _, y in corners), reverse=True)
