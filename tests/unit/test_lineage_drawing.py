"""The tree and the picture of a lineage: readable, complete, and safe whatever the names are."""

import re
from datetime import UTC, datetime
from itertools import pairwise
from xml.etree import ElementTree as ET

from tuneforge.lineage import LineageEdge, LineageGraph, LineageKind, LineageNode, LineageRole, LineageState
from tuneforge.lineage_drawing import svg, tree, without_shortcuts

P = "projects/default"
DATA, BASE, JOB = f"{P}/datasets/support/versions/2", f"{P}/models/smol/versions/1", f"{P}/jobs/route"
MADE, NEXT, ALIAS = f"{P}/models/router/versions/3", f"{P}/models/router/versions/4", f"{P}/models/router/aliases/prod"


def short(name: str) -> str:
    """Returns the last three parts of a name."""
    return "/".join(name.split("/")[3:])


def node(name: str, kind: LineageKind, depth: int, state: LineageState = LineageState.LIVE) -> LineageNode:
    """Returns a thing."""
    when = datetime(2026, 11, 20, 12, 0, tzinfo=UTC) if "/versions/" in name else None
    return LineageNode(name=name, kind=kind, state=state, digest="", create_time=when, depth=depth)


def edge(child: str, parent: str, role: LineageRole) -> LineageEdge:
    """Returns an edge."""
    return LineageEdge(child=child, parent=parent, role=role)


GRAPH = LineageGraph(
    nodes=(
        node(DATA, LineageKind.DATASET_VERSION, 0, LineageState.REVOKED),
        node(BASE, LineageKind.MODEL_VERSION, 1),
        node(JOB, LineageKind.JOB, 1, LineageState.TAINTED),
        node(MADE, LineageKind.MODEL_VERSION, 1, LineageState.TAINTED),
        node(NEXT, LineageKind.MODEL_VERSION, 2, LineageState.TAINTED),
        node(ALIAS, LineageKind.ALIAS, 2),
    ),
    edges=(
        edge(JOB, DATA, LineageRole.DATASET),
        edge(JOB, BASE, LineageRole.BASE),
        edge(MADE, DATA, LineageRole.DATASET),
        edge(MADE, BASE, LineageRole.BASE),
        edge(MADE, JOB, LineageRole.JOB),
        edge(NEXT, MADE, LineageRole.BASE),
        edge(NEXT, DATA, LineageRole.VALIDATION),
        edge(ALIAS, MADE, LineageRole.ALIAS),
    ),
)


def test_what_the_job_says_is_not_said_again() -> None:
    """The inputs of a version are those of its job; without a job they stay."""
    assert {(each.child, each.parent) for each in without_shortcuts(GRAPH)} == {
        (JOB, DATA),
        (JOB, BASE),
        (MADE, JOB),
        (NEXT, MADE),
        (NEXT, DATA),
        (ALIAS, MADE),
    }


def test_a_tree_names_each_thing_with_what_it_was_for() -> None:
    """Downwards from the data: job, version, alias and successor, with their states; what comes again is not spread."""
    lines = [re.sub(r"  2026-\S+ \S+", "", line) for line in tree(GRAPH, "descendants", short)]
    assert lines == [
        "support/versions/2  data set  [REVOKED]",
        "├─ route  job (dataset)  [TAINTED]",
        "│  └─ router/versions/3  model (job)  [TAINTED]",
        "│     ├─ router/versions/4  model (base)  [TAINTED]",
        "│     └─ router/aliases/prod  alias (alias)",
        "└─ router/versions/4  model (validation)  [TAINTED]",
    ]
    assert list(tree(LineageGraph(nodes=(), edges=()), "ancestors", short)) == []


def test_a_tree_of_a_long_history_needs_no_deep_stack() -> None:
    """Five thousand versions, each trained from the one before, are no problem for Python's stack."""
    names = [f"{P}/models/m/versions/{number}" for number in range(5000, 0, -1)]
    nodes = tuple(node(name, LineageKind.MODEL_VERSION, depth) for depth, name in enumerate(names))
    edges = tuple(edge(a, b, LineageRole.BASE) for a, b in pairwise(names))
    assert sum(1 for _ in tree(LineageGraph(nodes=nodes, edges=edges), "ancestors", short)) == 5000
    assert svg(LineageGraph(nodes=nodes, edges=edges), short).count("<rect") == 5001


def test_a_picture_is_well_formed_and_complete() -> None:
    """Each thing is one box right of all it was made from, each edge one line, on a ground of its own."""
    root = ET.fromstring(svg(GRAPH, short))
    space = "{http://www.w3.org/2000/svg}"
    boxes = {group.findtext(f"{space}title"): group.find(f"{space}rect") for group in root.iter(f"{space}g")}
    assert set(boxes) == {each.name for each in GRAPH.nodes}
    x = {name: float(box.get("x", "")) for name, box in boxes.items() if name and box is not None}
    assert all(x[each.parent] < x[each.child] for each in GRAPH.edges)
    assert len(root.findall(f"{space}path")) == len(without_shortcuts(GRAPH))
    ground = root.find(f"{space}rect")
    assert ground is not None
    assert ground.get("fill") == "#ffffff"


def test_a_box_is_as_wide_as_its_text() -> None:
    """Bold letters of the widest usual font stay inside; the boxes of a column are alike, and columns do not touch."""
    long = f"{P}/models/smollm2-135m-instruct/versions/1"
    graph = LineageGraph(
        nodes=(node(long, LineageKind.MODEL_VERSION, 0), node(BASE, LineageKind.MODEL_VERSION, 1)),
        edges=(edge(long, BASE, LineageRole.BASE),),
    )
    root = ET.fromstring(svg(graph, lambda name: name.split("/", 3)[3].replace("/versions", "")))
    space = "{http://www.w3.org/2000/svg}"
    widths = {}
    for group in root.iter(f"{space}g"):
        box, text = group.find(f"{space}rect"), group.find(f"{space}text")
        assert box is not None
        assert text is not None
        widths[text.text] = float(box.get("width", ""))
    # 184.2 px: this name in DejaVu Sans Bold, a wide one, at 13 px.
    assert widths["smollm2-135m-instruct/1"] >= 184.2 + 20
    assert widths["smol/1"] < widths["smollm2-135m-instruct/1"]
    boxes = sorted(
        (float(box.get("x", "")), float(box.get("width", ""))) for box in root.findall(f".//{space}g/{space}rect")
    )
    assert boxes[0][0] + boxes[0][1] < boxes[1][0]
    assert boxes[1][0] + boxes[1][1] < float(root.get("width", ""))


def test_names_cannot_break_out_of_a_picture() -> None:
    """An address with angle brackets and quotes is text and nothing else."""
    nasty = 'https://x/"><script>alert(1)</script>&'
    graph = LineageGraph(nodes=(node(nasty, LineageKind.SOURCE, 0),), edges=())
    picture = svg(graph, lambda name: name)
    assert "<script" not in picture
    titles = [each.text for each in ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}title")]
    assert titles == [f"Lineage of {nasty}", nasty]
