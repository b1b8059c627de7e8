"""A part of the graph of lineage as a picture (SVG) and as a tree of text. Needs nothing but the standard library."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from unicodedata import east_asian_width

from tuneforge.lineage import Direction, LineageEdge, LineageGraph, LineageKind, LineageNode, LineageRole, LineageState

_HEIGHT = 46
_NARROWEST, _PADDING = 120, 10
_NAME_PX, _WORDS_PX = 13, 11
_GAP_X, _GAP_Y, _MARGIN = 90, 18, 24
_SWEEPS = 6
_LONGEST = 26

_FILLS = {
    LineageKind.DATASET_VERSION: "#dcefe3",
    LineageKind.MODEL_VERSION: "#dde7fb",
    LineageKind.JOB: "#efe6f7",
    LineageKind.ALIAS: "#fdf0cf",
    LineageKind.PROMOTION: "#fde3cf",
    LineageKind.SOURCE: "#e9e9ec",
}
_WORDS = {
    LineageKind.DATASET_VERSION: "data set",
    LineageKind.MODEL_VERSION: "model",
    LineageKind.JOB: "job",
    LineageKind.ALIAS: "alias",
    LineageKind.PROMOTION: "promotion",
    LineageKind.SOURCE: "source",
}
_STROKES = {LineageState.REVOKED: "#b3261e", LineageState.TAINTED: "#b3261e", LineageState.DELETED: "#9a9aa2"}

Names = Callable[[str], str]
"""Gives a short form of a resource name."""


@dataclass(frozen=True, slots=True)
class _Place:
    x: float
    y: float
    width: float


def without_shortcuts(graph: LineageGraph) -> tuple[LineageEdge, ...]:
    """Returns the edges without those that repeat what the job of a version says: its inputs are the version's."""
    parents = {(edge.child, edge.parent, edge.role) for edge in graph.edges}
    jobs = {edge.child: edge.parent for edge in graph.edges if edge.role is LineageRole.JOB}
    return tuple(
        edge
        for edge in graph.edges
        if edge.role is LineageRole.JOB or (jobs.get(edge.child, ""), edge.parent, edge.role) not in parents
    )


def tree(graph: LineageGraph, direction: Direction, names: Names) -> Iterator[str]:
    """Yields the lines of a tree; what hangs at several places is spread out at the first and named at the others."""
    if not graph.nodes:
        return
    nodes = {node.name: node for node in graph.nodes}
    below: dict[str, list[tuple[str, LineageRole]]] = defaultdict(list)
    for edge in without_shortcuts(graph):
        here, there = (edge.child, edge.parent) if direction == "ancestors" else (edge.parent, edge.child)
        below[here].append((there, edge.role))
    shown: set[str] = set()
    start = min(node.depth for node in graph.nodes)
    # An explicit stack: a history of retraining may be longer than Python's.
    stack = [(node.name, "", "", "") for node in reversed(graph.nodes) if node.depth == start]
    while stack:
        name, role, lead, indent = stack.pop()
        again = name in shown and bool(below[name])
        yield f"{lead}{_line(nodes[name], role, names)}{'  (as above)' if again else ''}"
        if name in shown:
            continue
        shown.add(name)
        children = [entry for entry in below[name] if entry[0] in nodes]
        for index, (child, child_role) in reversed(list(enumerate(children))):
            is_last = index == len(children) - 1
            branch, rest = ("└─ ", "   ") if is_last else ("├─ ", "│  ")
            stack.append((child, child_role.value.lower(), indent + branch, indent + rest))


def _line(node: LineageNode, role: str, names: Names) -> str:
    when = f"  {node.create_time.astimezone():%Y-%m-%d %H:%M}" if node.create_time else ""
    state = "" if node.state is LineageState.LIVE else f"  [{node.state}]"
    return f"{names(node.name)}  {_WORDS.get(node.kind, 'thing')}{f' ({role})' if role else ''}{when}{state}"


def svg(graph: LineageGraph, names: Names) -> str:
    """Returns a picture: what things were made from on the left, what was made from them on the right."""
    edges = without_shortcuts(graph)
    layers = _layers(graph.nodes, edges)
    texts = {node.name: _texts(node, names) for node in graph.nodes}
    places = _places(layers, texts)
    width = _MARGIN + max((place.x + place.width for place in places.values()), default=_MARGIN)
    height = _MARGIN + max((place.y + _HEIGHT for place in places.values()), default=0)
    title = f"Lineage of {graph.nodes[0].name}" if graph.nodes else "Lineage"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" font-family="system-ui, sans-serif" font-size="{_NAME_PX}">',
        f"<title>{escape(title)}</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#6b6b76"/></marker></defs>',
        # A ground of its own: the picture is read the same way on a light page and on a dark one.
        f'<rect width="{width:.0f}" height="{height:.0f}" rx="8" fill="#ffffff"/>',
        *(_curve(edge, places, arrival) for edge, arrival in _arrivals(edges, places)),
        *(_box(node, places[node.name], texts[node.name]) for node in graph.nodes),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _layers(nodes: Sequence[LineageNode], edges: Iterable[LineageEdge]) -> list[list[str]]:
    """Returns names by column: each thing right of all that it was made from, ordered so that few lines cross."""
    known = [node.name for node in nodes]
    parents: dict[str, set[str]] = {name: set() for name in known}
    children: dict[str, set[str]] = {name: set() for name in known}
    for edge in edges:
        if edge.child in parents and edge.parent in parents:
            parents[edge.child].add(edge.parent)
            children[edge.parent].add(edge.child)
    column: dict[str, int] = {}
    waiting = {name: len(parents[name]) for name in known}
    front = [name for name in known if not waiting[name]]
    while front:
        name = front.pop()
        column[name] = 1 + max((column[each] for each in parents[name]), default=-1)
        for child in children[name]:
            waiting[child] -= 1
            if not waiting[child]:
                front.append(child)
    layers: list[list[str]] = [[] for _ in range(1 + max(column.values(), default=-1))]
    for name in known:
        layers[column[name]].append(name)
    height = {name: index / max(1, len(layer) - 1) for layer in layers for index, name in enumerate(layer)}
    for sweep in range(_SWEEPS):
        neighbours = parents if sweep % 2 == 0 else children
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            _order(layer, height, neighbours)
    return layers


def _order(layer: list[str], height: dict[str, float], neighbours: dict[str, set[str]]) -> None:
    """Orders a column by the middle of what each thing is connected to, and notes the new heights, 0 to 1."""
    middle = {
        name: sum(height[each] for each in neighbours[name]) / len(neighbours[name])
        if neighbours[name]
        else height[name]
        for name in layer
    }
    layer.sort(key=lambda name: middle[name])
    height.update((name, index / max(1, len(layer) - 1)) for index, name in enumerate(layer))


def _places(layers: Sequence[Sequence[str]], texts: Mapping[str, tuple[str, str]]) -> dict[str, _Place]:
    """Returns where each box stands; the boxes of a column are as wide as the longest text in it."""
    tallest = max((len(layer) for layer in layers), default=0)
    places = {}
    left: float = _MARGIN
    for layer in layers:
        top = (tallest - len(layer)) * (_HEIGHT + _GAP_Y) / 2
        width = max((_box_width(*texts[name]) for name in layer), default=_NARROWEST)
        for row, name in enumerate(layer):
            places[name] = _Place(left, _MARGIN + top + row * (_HEIGHT + _GAP_Y), width)
        left += width + _GAP_X
    return places


def _box_width(name: str, words: str) -> float:
    text = max(_NAME_PX * sum(map(_letter_width, name)), _WORDS_PX * sum(map(_letter_width, words)))
    return max(_NARROWEST, 2 * _PADDING + text)


def _letter_width(letter: str) -> float:
    """Returns the most that a bold letter takes, in heights of the font: which font draws it is not known."""
    if east_asian_width(letter) in {"W", "F"} or letter in "mwMW@%…":
        return 1.1
    if letter in "ijlft-./:·| ":
        return 0.5
    return 0.85 if letter.isupper() or letter in "#&+<=>^~" else 0.72


def _arrivals(edges: Iterable[LineageEdge], places: dict[str, _Place]) -> Iterator[tuple[LineageEdge, float]]:
    """Yields the edges with where each meets its child, top to bottom as their parents stand: words do not overlap."""
    coming: dict[str, list[LineageEdge]] = defaultdict(list)
    for edge in edges:
        if edge.child in places and edge.parent in places:
            coming[edge.child].append(edge)
    for child, several in coming.items():
        several.sort(key=lambda edge: places[edge.parent].y)
        for index, edge in enumerate(several, 1):
            yield edge, places[child].y + _HEIGHT * index / (len(several) + 1)


def _curve(edge: LineageEdge, places: dict[str, _Place], y2: float) -> str:
    start = places[edge.parent]
    x1, y1, x2 = start.x + start.width, start.y + _HEIGHT / 2, places[edge.child].x - 2
    middle = (x1 + x2) / 2
    dash = ' stroke-dasharray="4 3"' if edge.role is LineageRole.VALIDATION else ""
    label = escape(edge.role.value.lower())
    return (
        f'<path d="M{x1:.1f} {y1:.1f}C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {x2:.1f} {y2:.1f}" fill="none" '
        f'stroke="#6b6b76" stroke-width="1.2"{dash} marker-end="url(#tip)"/>'
        f'<text x="{x2 - 10:.1f}" y="{y2 - 3:.1f}" font-size="10" fill="#5a5a64" text-anchor="end">{label}</text>'
    )


def _texts(node: LineageNode, names: Names) -> tuple[str, str]:
    """Returns the two lines of a box: the name, and what it is."""
    short = names(node.name)
    name = short if len(short) <= _LONGEST else f"{short[: _LONGEST - 9]}…{short[-8:]}"
    when = f" · {node.create_time.astimezone():%Y-%m-%d}" if node.create_time else ""
    state = "" if node.state is LineageState.LIVE else f" · {node.state.value.lower()}"
    return name, _WORDS.get(node.kind, "thing") + when + state


def _box(node: LineageNode, place: _Place, texts: tuple[str, str]) -> str:
    stroke = _STROKES.get(node.state, "#8a8a94")
    dash = ' stroke-dasharray="5 3"' if node.state is LineageState.TAINTED else ""
    strong = 2 if node.state in {LineageState.REVOKED, LineageState.TAINTED} else 1
    name, words = map(escape, texts)
    return (
        f"<g><title>{escape(node.name)}</title>"
        f'<rect x="{place.x:.1f}" y="{place.y:.1f}" width="{place.width:.1f}" height="{_HEIGHT}" rx="6" '
        f'fill="{_FILLS.get(node.kind, "#e9e9ec")}" stroke="{stroke}" stroke-width="{strong}"{dash}/>'
        f'<text x="{place.x + _PADDING:.1f}" y="{place.y + 20:.1f}" fill="#1c1c22" font-weight="600">{name}</text>'
        f'<text x="{place.x + _PADDING:.1f}" y="{place.y + 36:.1f}" font-size="{_WORDS_PX}" fill="#44444e">'
        f"{words}</text></g>"
    )
