"""A walk that reads all edges at once finds what a walk from thing to thing finds, whatever the order of numbers."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert

from services.registry.lineage import graph
from services.registry.lineage.graph import Direction, everything
from services.registry.lineage.things import LEARNED, Role
from services.registry.tables.lineage import LINEAGE_EDGES, LINEAGE_NODES
from tests.support.postgres import EACH_DATABASE
from tests.support.registry_rows import registry_rows

pytestmark = EACH_DATABASE

THINGS = 120


def fill(connection: Connection, chance: random.Random) -> list[tuple[int, int, Role]]:
    """Adds a random graph without cycles in which half of the edges go to a larger number; returns its edges."""
    order = chance.sample(range(1, THINGS + 1), THINGS)
    edges = [
        (order[later], order[chance.randrange(later)], chance.choice(list(Role)))
        for later in range(1, THINGS)
        for _ in range(chance.choice((0, 1, 1, 2)))
    ]
    things = [
        {"id": number, "project": "p", "name": f"n{number}", "kind": "JOB", "collection": "", "depth": 0}
        for number in range(1, THINGS + 1)
    ]
    connection.execute(insert(LINEAGE_NODES), things)
    rows = [{"child": child, "parent": parent, "role": role.value} for child, parent, role in sorted(set(edges))]
    connection.execute(insert(LINEAGE_EDGES), rows)
    return edges


def downstream(connection: Connection, start: int) -> set[int]:
    """Returns what learned from a thing, as the registry finds it."""
    return everything(connection, [start], Direction.DESCENDANTS, roles=LEARNED)


def walked(edges: list[tuple[int, int, Role]], start: int) -> set[int]:
    """Returns what learned from a thing, found one thing at a time."""
    seen, front = {start}, [start]
    while front:
        here = front.pop()
        reached = {child for child, parent, role in edges if parent == here and role in LEARNED} - seen
        seen |= reached
        front += reached
    return seen


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_one_reading_of_all_edges_finds_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """From the first thing on, or once a few were reached; on edges to larger and to smaller numbers."""
    monkeypatch.setattr(graph, "_FEW", 0)
    monkeypatch.setattr(graph, "_MANY", share)
    for seed in range(3):
        with registry_rows(tmp_path / str(seed)) as database:
            edges = database.write_sync(partial(fill, chance=random.Random(seed)))
            for start in range(1, THINGS + 1, 7):
                found = database.read_sync(partial(downstream, start=start))
                assert found == walked(edges, start)
