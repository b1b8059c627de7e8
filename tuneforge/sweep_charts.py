"""Pictures of a sweep as SVG, without any library or script: history, importance, parallel coordinates."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneforge.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, grid
from tuneforge.sweep_values import Trial, TrialState

_BAR, _LABEL = 24, 240
_LINES = 240
"""Height of the axes of parallel coordinates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """A vertical axis: where a value stands between 0 (below) and 1."""

    name: str
    ticks: tuple[tuple[float, str], ...]
    places: Mapping[str, float]
    """Key of a value -> place."""

    def place(self, value: Any) -> float | None:
        """Returns where a value stands; None: nowhere."""
        return self.places.get(_key(value))


def history(trials: Sequence[Trial], metric: str, *, is_maximised: bool) -> str:
    """Returns the values of the trials by number, and the best one so far as a line."""
    valued = [each for each in trials if each.value is not None and math.isfinite(each.value)]
    if len(valued) < 2:
        return f"<p>{html.escape(metric)} by trial: fewer than two values</p>"
    values = [each.value or 0.0 for each in valued]
    low, top = min(values), max(values)
    margin = (top - low) * 0.05 or abs(top) * 0.05 or 1.0
    low, top, last = low - margin, top + margin, max(each.number for each in trials)

    def place(number: int, value: float) -> tuple[float, float]:
        x = LEFT + (number - 1) / max(1, last - 1) * (WIDTH - LEFT - RIGHT)
        return x, HEIGHT - BOTTOM - (value - low) / (top - low) * (HEIGHT - TOP - BOTTOM)

    dots, line, best = [], [], None
    for each, value in zip(valued, values, strict=True):
        x, y = place(each.number, value)
        is_whole = each.state is TrialState.SUCCEEDED
        title = f"<title>{html.escape(f'trial {each.number}: {value:.6g} ({each.state.lower()})')}</title>"
        dots.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="{"whole" if is_whole else "cut"}">{title}</circle>'
        )
        if is_whole and (best is None or (value > best if is_maximised else value < best)):
            if best is not None:
                line.append(place(each.number, best))
            best = value
            line.append((x, y))
    if best is not None:
        line.append(place(last, best))
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="history">{grid(low, top)}'
        f'<polyline points="{drawn}"/>{"".join(dots)}'
        f'<text x="{LEFT}" y="{HEIGHT - 8}">1</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{last} trials</text></svg>'
        f"<p class=caption>{html.escape(metric)} by trial; the line is the best so far, hollow ones were stopped</p>"
    )


def importance_bars(shares: Mapping[str, float]) -> str:
    """Returns a bar for each parameter, the most important first."""
    bars = []
    for row, (name, share) in enumerate(sorted(shares.items(), key=lambda item: (-item[1], item[0]))):
        y = row * _BAR
        width = share * (WIDTH - _LABEL - 60)
        bars.append(
            f'<text x="{_LABEL - 8}" y="{y + 16}" text-anchor="end">{html.escape(name)}</text>'
            f'<rect x="{_LABEL}" y="{y + 4}" width="{width:.1f}" height="{_BAR - 8}"/>'
            f'<text x="{_LABEL + width + 6:.1f}" y="{y + 16}">{share:.0%}</text>'
        )
    height = max(1, len(bars)) * _BAR
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="importance">{"".join(bars)}</svg>'


def parallel_coordinates(trials: Sequence[Trial], metric: str, best: Trial | None) -> str:
    """Returns a line for each trial with a value through its parameters and its value; the best one is drawn strong."""
    shown = [each for each in trials if each.value is not None and math.isfinite(each.value)]
    names = sorted({name for each in shown for name in each.parameters})
    if len(shown) < 2 or not names:
        return "<p>parallel coordinates: fewer than two trials with a value</p>"
    axes = [_axis(name, [each.parameters[name] for each in shown if name in each.parameters]) for name in names]
    axes.append(_axis(metric, [each.value for each in shown]))
    step = (WIDTH - 2 * LEFT) / (len(axes) - 1)
    ordered = sorted(shown, key=lambda each: best is not None and each.name == best.name)
    lines = []
    for each in ordered:
        values = [*(each.parameters.get(name) for name in names), each.value]
        found = [(index, axis.place(value)) for index, (axis, value) in enumerate(zip(axes, values, strict=True))]
        path = " ".join(f"{LEFT + x * step:.1f},{_y(place):.1f}" for x, place in found if place is not None)
        kind = "best" if best is not None and each.name == best.name else each.state.lower()
        lines.append(f'<polyline points="{path}" class="run {kind}"><title>trial {each.number}</title></polyline>')
    frames = "".join(_frame(axis, LEFT + index * step, index % 2) for index, axis in enumerate(axes))
    height = _LINES + 72
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="parallel coordinates">'
        f"{''.join(lines)}{frames}</svg>"
        "<p class=caption>one line a trial; the strong one is the best, dashed ones were stopped</p>"
    )


def _y(place: float) -> float:
    return 24 + (1 - place) * (_LINES - 16)


def _frame(axis: _Axis, x: float, lower: int) -> str:
    name = html.escape(axis.name.rpartition(".")[2])
    ticks = "".join(
        f'<text x="{x + 4:.1f}" y="{_y(place) + 4:.1f}">{html.escape(text)}</text>' for place, text in axis.ticks
    )
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_y(1):.1f}" y2="{_y(0):.1f}" class="axis"/>{ticks}'
        f'<text x="{x:.1f}" y="{_LINES + 30 + 16 * lower}" text-anchor="middle">{name}</text>'
    )


def _axis(name: str, values: Sequence[Any]) -> _Axis:
    numbers = [each for each in values if isinstance(each, int | float) and not isinstance(each, bool)]
    if len(numbers) == len(values):
        low, top = min(numbers), max(numbers)
        is_log = low > 0 and top / low > 50
        scaled = (lambda each: math.log(each)) if is_log else float
        width = (scaled(top) - scaled(low)) or 1.0
        places = {_key(each): (scaled(each) - scaled(low)) / width if top > low else 0.5 for each in numbers}
        ticks = {places[_key(each)]: f"{each:.4g}" for each in (low, top)}
        return _Axis(name=name, ticks=tuple(ticks.items()), places=places)
    words = sorted({_key(each) for each in values})
    spread = {word: index / (len(words) - 1) if len(words) > 1 else 0.5 for index, word in enumerate(words)}
    return _Axis(name=name, ticks=tuple((place, word[:24]) for word, place in spread.items()), places=spread)


def _key(value: Any) -> str:
    return f"{value:.17g}" if isinstance(value, float) else str(value)


STYLE = """
circle.whole { fill: var(--line); } circle.cut { fill: none; stroke: var(--line); } rect { fill: var(--line); }
polyline.run { stroke-width: 1; opacity: .45; } polyline.pruned { stroke-dasharray: 4 3; opacity: .3; }
polyline.best { stroke-width: 3; opacity: 1; } line.axis { stroke: currentColor; opacity: .5; }
"""
"""What these pictures need beside the style of a report."""
