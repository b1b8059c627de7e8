"""Line charts as SVG and the demo's page as HTML, without any library or script."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 720, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 32
GRID_LINES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One line over a common x axis."""

    title: str
    x_label: str
    y_label: str
    points: Sequence[tuple[float, float]]
    """(x, y), x ascending."""


def line_chart(chart: Chart) -> str:
    """Returns an SVG of a chart, nothing of which lies outside; with fewer than two points, a sentence that says so.

    A value that is no finite number has no place: the line goes on behind it.
    """
    points = [(x, y) for x, y in chart.points if math.isfinite(y)]
    if len(points) < 2:
        return f"<p>{html.escape(chart.title)}: fewer than two points</p>"
    xs = [x for x, _ in points]
    low, top = min(0.0, *(y for _, y in points)) * 1.05, max(0.0, *(y for _, y in points)) * 1.05
    top = top if top > low else 1.0
    span = (xs[-1] - xs[0]) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - xs[0]) / span * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (y - low) / (top - low) * (HEIGHT - TOP - BOTTOM),
        )

    line = " ".join(f"{px:.1f},{py:.1f}" for px, py in (place(x, y) for x, y in points))
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(chart.title)}">'
        f"{grid(low, top)}"
        f'<polyline points="{line}"/>'
        f'<text x="{LEFT}" y="{HEIGHT - 8}">{xs[0]:g}</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{xs[-1]:g} {html.escape(chart.x_label)}</text>'
        f"</svg><p class=caption>{html.escape(chart.title)} ({html.escape(chart.y_label)})</p>"
    )


def grid(low: float, top: float) -> str:
    """Returns horizontal lines with their values, between the borders of a chart."""
    parts = []
    for index in range(GRID_LINES + 1):
        value = low + (top - low) * index / GRID_LINES
        y = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * index / GRID_LINES
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    return "".join(parts)


STYLE = """
:root { color-scheme: light dark; --ink: #1d2733; --paper: #fff; --line: #c3651a; --grid: #dfe4ea; }
@media (prefers-color-scheme: dark) { :root { --ink: #dde5ee; --paper: #14191f; --line: #f0a35e; --grid: #2b333d; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
body { max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
svg { width: 100%; height: auto; } polyline { fill: none; stroke: var(--line); stroke-width: 1.8; }
line { stroke: var(--grid); } text { font-size: 11px; fill: currentColor; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--grid); vertical-align: top; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8em; }
.caption { text-align: center; margin-top: 0; opacity: .75; } code { font-size: .85em; overflow-wrap: anywhere; }
"""


def page(title: str, facts: Mapping[str, str], charts: Sequence[Chart], rows: Sequence[Sequence[str]]) -> str:
    """Returns a page with a table of facts, charts, and a table whose first row is its head."""
    fact_rows = "".join(
        f"<tr><th>{html.escape(key)}</th><td><code>{html.escape(value)}</code></td></tr>"
        for key, value in facts.items()
    )
    head, *body = rows or [[]]
    head_row = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body_rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>" for cells in body)
    drawn = "".join(line_chart(chart) for chart in charts)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8>"
        f'<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>"
        f"<h1>{html.escape(title)}</h1><table>{fact_rows}</table>{drawn}"
        f"<table><tr>{head_row}</tr>{body_rows}</table></html>\n"
    )
