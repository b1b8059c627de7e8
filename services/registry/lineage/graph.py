"""Walks over the graph: breadth first, a level at a time, each level in queries of many numbers.

Measured against a recursive query, this is the faster way on SQLite (see ADR 0013), and it can stop early. A walk that
reaches much of the graph and cannot stop reads all edges once in place of the levels that are left.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from sqlalchemy import Connection

from services.registry.lineage.things import Role
from services.registry.tables.lineage import LINEAGE_EDGES, LINEAGE_NODES

T = TypeVar("T")

_NUMBERS_PER_QUERY = 1000
"""Numbers in one IN clause. They are written into the statement: binding them costs more than the query itself."""
_FEW = 1000
"""Things that are always followed a level at a time."""
_MANY = 0.05
"""Share of all things from which on all edges are read: to find those of one thing costs as much as to read five."""
_EDGES = LINEAGE_EDGES.name


class Direction(Enum):
    """Which way a walk goes."""

    ANCESTORS = "ANCESTORS"
    """To what a thing was made from."""
    DESCENDANTS = "DESCENDANTS"
    """To what was made from it."""


_ENDS = {Direction.ANCESTORS: ("child", "parent"), Direction.DESCENDANTS: ("parent", "child")}
"""Direction -> columns of where a walk is and of where it goes."""


@dataclass(slots=True)
class Walk:
    """How far a walk has come."""

    direction: Direction
    roles: frozenset[Role] = frozenset()
    """Edges that it follows; empty: all."""
    levels: list[list[int]] = field(default_factory=list)
    """Numbers by distance from the start; each level in ascending order."""
    seen: set[int] = field(default_factory=set)
    edges: list[tuple[int, int, str]] = field(default_factory=list)
    """(child, parent, role) of every edge that was followed, also to what was seen before."""

    def begin(self, numbers: Iterable[int]) -> None:
        """Sets where it starts."""
        self.levels.append(sorted(set(numbers)))
        self.seen.update(self.levels[0])

    def step(self, connection: Connection, may_see: Callable[[Connection, Collection[int]], Collection[int]]) -> bool:
        """Goes on by one level; returns whether there was one.

        Args:
            connection: The database.
            may_see: Gives those of some numbers that the caller may see.
        """
        here, upwards = _ENDS[self.direction][0], self.direction is Direction.ANCESTORS
        found: list[tuple[int, int, str]] = []
        for some in batches(self.levels[-1]):
            statement = f"SELECT child, parent, role FROM {_EDGES} WHERE {here} IN ({_listed(some)})"  # noqa: S608
            found += [edge for edge in rows(connection, statement) if not self.roles or edge[2] in self.roles]
        reached = {edge[1] if upwards else edge[0] for edge in found} - self.seen
        level = sorted(may_see(connection, reached)) if reached else []
        self.seen.update(level)
        self.edges.extend(edge for edge in found if (edge[1] if upwards else edge[0]) in self.seen)
        if level:
            self.levels.append(level)
        return bool(level)


def everything(
    connection: Connection, numbers: Iterable[int], direction: Direction, *, roles: Collection[Role] = frozenset(Role)
) -> set[int]:
    """Returns all that is reached from some things by edges of some roles, these included, in every project."""
    here, there = _ENDS[direction]
    # Those that are left out are named: to look a role up among eight, row by row, costs a tenth of a walk over all.
    left_out = ", ".join(f"'{role.value}'" for role in sorted(frozenset(Role).difference(roles)))
    is_followed = f"role NOT IN ({left_out})" if left_out else "1 = 1"
    ((things,),) = rows(connection, f"SELECT coalesce(max(id), 0) FROM {LINEAGE_NODES.name}")  # noqa: S608
    many = max(_FEW, _MANY * things) if direction is Direction.DESCENDANTS else math.inf
    seen = set(numbers)
    front: Collection[int] = seen
    while front:
        if len(seen) > many:
            front, many = _sweep(connection, seen, min(front), is_followed), math.inf
            continue
        reached: set[int] = set()
        for some in batches(front):
            statement = f"SELECT {there} FROM {_EDGES} WHERE {here} IN ({_listed(some)}) AND {is_followed}"  # noqa: S608
            reached.update([number for (number,) in rows(connection, statement)])
        front = reached - seen
        seen |= reached
    return seen


def _sweep(connection: Connection, seen: set[int], begin: int, is_followed: str) -> set[int]:
    """Adds what is reached downwards, in one reading of all edges; returns what has to be gone on from.

    Edges come in the order of their parents, and nearly everything has a larger number than what it was made from, so
    nearly every thing is reached before its own edges come. What is not, such as a version to which an old alias was
    moved, is returned.

    Args:
        connection: The database.
        seen: What was reached; it grows.
        begin: Least number of what was not gone on from yet.
        is_followed: Condition of the edges to follow.
    """
    left, add = set(), seen.add
    edges = f"SELECT parent, child FROM {_EDGES} WHERE parent >= {begin} AND {is_followed} ORDER BY parent"  # noqa: S608
    driver: Any = connection.connection  # its type does not know that cursors are iterable
    with closing(driver.cursor()) as cursor:
        cursor.execute(edges)
        for parent, child in cursor:
            if parent in seen:
                if child < parent and child not in seen:
                    left.add(child)
                add(child)
    return left


def shortest(connection: Connection, child: int, ancestor: int, may_see: Callable[..., Collection[int]]) -> list[int]:
    """Returns the things on a shortest way from a thing up to an ancestor, both included; empty when there is none."""
    walk = Walk(Direction.ANCESTORS)
    walk.begin([child])
    while ancestor not in walk.seen:
        if not walk.step(connection, may_see):
            return []
    depth = {number: level for level, numbers in enumerate(walk.levels) for number in numbers}
    below: dict[int, int] = {}
    for one, parent, _ in walk.edges:
        if depth[parent] == depth[one] + 1:
            below[parent] = min(one, below.get(parent, one))
    way = [ancestor]
    while way[-1] != child:
        way.append(below[way[-1]])
    return way[::-1]


def rows(connection: Connection, statement: str) -> list[Any]:
    """Returns the rows of a query without parameters, straight from the driver: a walk reads hundreds of thousands."""
    with closing(connection.connection.cursor()) as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def _listed(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))


def batches(keys: Collection[T]) -> Iterator[list[T]]:
    """Yields keys in parts that fit into one query."""
    ordered = list(keys)
    for start in range(0, len(ordered), _NUMBERS_PER_QUERY):
        yield ordered[start : start + _NUMBERS_PER_QUERY]
