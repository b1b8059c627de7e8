"""The rows of the graph: things, and the edges from each to what it was made from.

Every function runs in the transaction of its caller, so that a thing and its edges come and go together.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from services.grpckit.errors import Reason, ServiceError
from services.registry.lineage.graph import Direction, batches, everything
from services.registry.lineage.things import MOST_BASES, Kind, Role, Thing, thing_of
from services.registry.tables.lineage import LINEAGE_EDGES, LINEAGE_NODES

Parent = tuple[str, Role]
"""Name of what something was made from, and what it was for it."""


def add_edges(connection: Connection, child: str, parents: Sequence[Parent]) -> None:
    """Notes what a thing was made from; edges that stand already are left as they are.

    Args:
        connection: The transaction that makes the thing.
        child: Resource name of the thing; it is added to the graph even without parents.
        parents: What it was made from: resource names, or the address of a source.

    Raises:
        ServiceError: `CYCLE`: a parent is made from the child. `LINEAGE_DEPTH`: the chain of bases is too long.
    """
    known = _find(connection, [child, *(name for name, _ in parents)])
    bases = [known[name].depth for name, role in parents if role is Role.BASE and name in known]
    depth = _depth(child, bases)
    is_new = child not in known
    number = _number(connection, thing_of(child), depth) if is_new else known[child].id
    edges = {
        (known[name].id if name in known else _number(connection, thing_of(name), 0), role) for name, role in parents
    }
    if not is_new:
        standing = connection.execute(
            select(LINEAGE_EDGES.c.parent, LINEAGE_EDGES.c.role).where(LINEAGE_EDGES.c.child == number)
        )
        edges -= {(row.parent, Role(row.role)) for row in standing}
    if edges and (not is_new or any(parent == number for parent, _ in edges)):
        _refuse_cycle(connection, child, number, {parent for parent, _ in edges})
    if edges:
        rows = [{"child": number, "parent": parent, "role": role.value} for parent, role in sorted(edges)]
        connection.execute(insert(LINEAGE_EDGES), rows)


def replace_edges(connection: Connection, child: str, parents: Sequence[Parent]) -> None:
    """Points a thing that moves, such as an alias or a promotion, to what it names now; no parents: it names nothing.

    Raises:
        ServiceError: As `add_edges`.
    """
    known = _find(connection, [child])
    if child in known:
        connection.execute(delete(LINEAGE_EDGES).where(LINEAGE_EDGES.c.child == known[child].id))
    if parents:
        add_edges(connection, child, parents)


def numbers_of(connection: Connection, name: str) -> list[int]:
    """Returns the numbers of a thing, or of all versions of a data set or a model; none when it is not in the graph."""
    statement = select(LINEAGE_NODES.c.id).where((LINEAGE_NODES.c.name == name) | (LINEAGE_NODES.c.collection == name))
    return list(connection.execute(statement).scalars())


def things(connection: Connection, numbers: Collection[int]) -> dict[int, Thing]:
    """Returns things by number."""
    found: dict[int, Thing] = {}
    for some in batches(numbers):
        for row in connection.execute(select(LINEAGE_NODES).where(LINEAGE_NODES.c.id.in_(some))):
            found[row.id] = Thing(name=row.name, kind=Kind(row.kind), project=row.project, collection=row.collection)
    return found


def in_projects(connection: Connection, numbers: Collection[int], projects: Collection[str]) -> set[int]:
    """Returns those of some things that belong to some projects."""
    found: set[int] = set()
    for some in batches(numbers):
        statement = select(LINEAGE_NODES.c.id).where(
            LINEAGE_NODES.c.id.in_(some), LINEAGE_NODES.c.project.in_(list(projects))
        )
        found.update(connection.execute(statement).scalars())
    return found


def _depth(child: str, bases: Iterable[int]) -> int:
    depth = 1 + max(bases, default=-1)
    if depth > MOST_BASES:
        raise ServiceError(
            Reason.LINEAGE_DEPTH,
            f"{child} would stand on {depth} bases, one trained from the other; at most {MOST_BASES} are taken",
            metadata={"name": child, "depth": str(depth), "limit": str(MOST_BASES)},
        )
    return depth


def _refuse_cycle(connection: Connection, child: str, number: int, parents: Collection[int]) -> None:
    if number in everything(connection, parents, Direction.ANCESTORS):
        raise ServiceError(
            Reason.CYCLE,
            f"{child} cannot be made from something that was made from it",
            metadata={"name": child},
        )


def _find(connection: Connection, names: Sequence[str]) -> dict[str, Any]:
    statement = select(LINEAGE_NODES.c.id, LINEAGE_NODES.c.name, LINEAGE_NODES.c.depth)
    return {row.name: row for row in connection.execute(statement.where(LINEAGE_NODES.c.name.in_(names)))}


def _number(connection: Connection, thing: Thing, depth: int) -> int:
    """Adds a thing, or finds it when another transaction was faster."""
    row = {
        "project": thing.project,
        "name": thing.name,
        "kind": thing.kind.value,
        "collection": thing.collection,
        "depth": depth,
    }
    try:
        with connection.begin_nested():
            statement = insert(LINEAGE_NODES).values(**row).returning(LINEAGE_NODES.c.id)
            return int(connection.execute(statement).scalar_one())
    except IntegrityError:
        found = select(LINEAGE_NODES.c.id).where(LINEAGE_NODES.c.name == thing.name)
        return int(connection.execute(found).scalar_one())
