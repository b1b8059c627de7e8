"""The questions that the graph answers: a walk by pages, a path, the aliases that must move."""

from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, String, cast, func, select, tuple_

from services.grpckit.errors import not_found
from services.grpckit.pages import Page
from services.registry.lineage import revocations, store
from services.registry.lineage.graph import Direction, Walk, batches, everything, rows, shortest
from services.registry.lineage.sight import Sight
from services.registry.lineage.things import LEARNED, Kind, Role, Thing, thing_of
from services.registry.tables import ALIASES, DATASET_VERSIONS, MODEL_VERSIONS
from services.registry.tables.lineage import LINEAGE_EDGES, LINEAGE_NODES
from tuneforge.names import DatasetVersionName, ModelVersionName

_FEW_LEFT = 1000
"""Things that are looked at one by one, in place of all versions of the models that are asked for."""

# Built once. The targets are read from the aliases themselves, not from the graph.
_MODEL = "projects/" + ALIASES.c.project + "/models/" + ALIASES.c.model
_TARGETS = (
    select(ALIASES.c.project, ALIASES.c.model, ALIASES.c.alias, LINEAGE_NODES.c.id, LINEAGE_NODES.c.name)
    .join(LINEAGE_NODES, LINEAGE_NODES.c.name == _MODEL + "/versions/" + cast(ALIASES.c.version, String))
    .where(ALIASES.c.version.is_not(None))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a walk asks for."""

    name: str
    direction: Direction
    roles: frozenset[Role] = frozenset()
    kinds: frozenset[Kind] = frozenset()
    max_depth: int = 0
    """Most edges from the start; 0: any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A thing as an answer shows it."""

    number: int
    thing: Thing
    state: str
    """LIVE, REVOKED, TAINTED or DELETED."""
    digest: str
    create_time_us: int
    """0 for what is no version."""
    depth: int


@dataclass(frozen=True, slots=True)
class Found:
    """A part of the graph."""

    nodes: list[Node] = field(default_factory=list)
    edges: list[tuple[str, str, str]] = field(default_factory=list)
    """(child, parent, role)."""
    has_more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Affected:
    """An alias that names something made from what was asked for."""

    name: str
    version: str
    suggestion: str
    """Version that it could move to; empty: there is none."""


def start_of(connection: Connection, name: str) -> list[int]:
    """Returns where a question begins: a thing, or all versions of a data set or a model.

    Raises:
        ServiceError: `NOT_FOUND`.
    """
    numbers = store.numbers_of(connection, name)
    if not numbers:
        raise not_found("thing in the graph of lineage", name)
    return numbers


def ask(connection: Connection, question: Question, page: Page, sight: Sight) -> Found:
    """Answers one page of a walk: things by distance, then in the order in which they came into the graph.

    The walk goes only as far as the page needs.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such thing. `INVALID_PAGE_TOKEN`.
    """
    walk = Walk(question.direction, question.roles)
    walk.begin(start_of(connection, question.name))
    after = page.after_number(0)
    order: list[int] = []
    kinds: dict[int, Thing] = {}
    taken = 0
    while True:
        level = walk.levels[-1]
        if question.kinds:
            kinds.update(store.things(connection, level))
            level = [number for number in level if kinds[number].kind in question.kinds]
        order.extend(level)
        if len(order) > after + page.size:
            taken += 1  # one level more, for the edges of the things of this page
        is_far = question.max_depth and len(walk.levels) > question.max_depth
        if taken > 1 or is_far or not walk.step(connection, sight):
            break
    chosen = order[after : after + page.size]
    depths = {number: depth for depth, level in enumerate(walk.levels) for number in level}
    nodes = describe(connection, chosen, depths)
    edges = _edges(connection, walk, order, after, page.size)
    return Found(nodes, edges, has_more=len(order) > after + page.size)


def path(connection: Connection, name: str, other: str, sight: Sight) -> Found:
    """Returns a shortest way between two things, the later one first; empty when neither was made from the other.

    Raises:
        ServiceError: `NOT_FOUND`.
    """
    (one, *_), (two, *_) = start_of(connection, name), start_of(connection, other)
    way = shortest(connection, one, two, sight) or shortest(connection, two, one, sight)
    nodes = describe(connection, way, {number: depth for depth, number in enumerate(way)})
    names = {node.number: node.thing.name for node in nodes}
    edges = []
    for child, parent in pairwise(way):
        statement = select(LINEAGE_EDGES.c.role).where(LINEAGE_EDGES.c.child == child, LINEAGE_EDGES.c.parent == parent)
        edges += [(names[child], names[parent], role) for role in sorted(connection.execute(statement).scalars())]
    return Found(nodes, edges)


def downstream(connection: Connection, name: str) -> tuple[set[int], Counter[str]]:
    """Returns all that learned from a thing, in all projects and without the thing, and how many of each kind."""
    begin = start_of(connection, name)
    found = everything(connection, begin, Direction.DESCENDANTS, roles=LEARNED) - set(begin)
    counts: Counter[str] = Counter()
    for some in batches(found):
        statement = select(LINEAGE_NODES.c.kind, func.count()).where(LINEAGE_NODES.c.id.in_(some))
        counts.update({row.kind: row[1] for row in connection.execute(statement.group_by(LINEAGE_NODES.c.kind))})
    return found, counts


def affected_aliases(connection: Connection, name: str, sight: Sight) -> list[Affected]:
    """Returns the aliases whose version learned from a thing, by name, each with the version it could move to.

    Raises:
        ServiceError: `NOT_FOUND`.
    """
    reached = everything(connection, start_of(connection, name), Direction.DESCENDANTS, roles=LEARNED)
    hit = [row for row in connection.execute(_TARGETS) if row.id in reached]
    seen = set(sight(connection, {row.id for row in hit}))
    hit = [row for row in hit if row.id in seen]
    reached |= revocations.tainted_numbers(connection)  # from here on: what is no target
    suggestions = _suggestions(connection, {f"projects/{row.project}/models/{row.model}" for row in hit}, reached)
    return sorted(
        (
            Affected(
                name=f"projects/{row.project}/models/{row.model}/aliases/{row.alias}",
                version=row.name,
                suggestion=suggestions.get(f"projects/{row.project}/models/{row.model}", ""),
            )
            for row in hit
        ),
        key=lambda each: each.name,
    )


def describe(connection: Connection, numbers: Sequence[int], depths: dict[int, int]) -> list[Node]:
    """Returns things as an answer shows them, in the order given."""
    things = store.things(connection, numbers)
    versions = _versions(connection, [thing.name for thing in things.values()])
    marks = revocations.taints(connection, [thing.name for thing in things.values()])
    nodes = []
    for number in numbers:
        thing = things[number]
        digest, create_time_us, is_deleted = versions.get(thing.name, ("", 0, False))
        nodes.append(
            Node(
                number=number,
                thing=thing,
                state=_state(thing, marks.get(thing.name, ()), is_deleted=is_deleted),
                digest=digest,
                create_time_us=create_time_us,
                depth=depths[number],
            )
        )
    return nodes


def _state(thing: Thing, marks: Sequence[revocations.Revocation], *, is_deleted: bool) -> str:
    if is_deleted:
        return "DELETED"
    if any(mark.name in {thing.name, thing.collection} for mark in marks):
        return "REVOKED"
    return "TAINTED" if marks else "LIVE"


def _edges(
    connection: Connection, walk: Walk, order: Sequence[int], after: int, size: int
) -> list[tuple[str, str, str]]:
    """Returns the edges whose later end is on the page: each edge comes once, with the page that completes it."""
    place = {number: index for index, number in enumerate(order)}
    end = after + size
    ends = [
        (child, parent, role)
        for child, parent, role in walk.edges
        if child in place and parent in place and after <= max(place[child], place[parent]) < end
    ]
    names = store.things(connection, {number for edge in ends for number in edge[:2]})
    return sorted({(names[child].name, names[parent].name, role) for child, parent, role in ends})


def _versions(connection: Connection, names: Collection[str]) -> dict[str, tuple[str, int, bool]]:
    """Returns digest, time of making and whether it was deleted, of those names that are versions."""
    found: dict[str, tuple[str, int, bool]] = {}
    for kind, table, parent in (
        (DatasetVersionName, DATASET_VERSIONS, DATASET_VERSIONS.c.dataset),
        (ModelVersionName, MODEL_VERSIONS, MODEL_VERSIONS.c.model),
    ):
        wanted = Kind.DATASET_VERSION if kind is DatasetVersionName else Kind.MODEL_VERSION
        keys = [
            (parts[1], parts[3], int(parts[5]))
            for name in names
            if thing_of(name).kind is wanted and (parts := name.split("/"))
        ]
        for start in range(0, len(keys), 300):
            statement = select(
                table.c.project, parent, table.c.version, table.c.digest, table.c.create_time_us, table.c.delete_time_us
            ).where(tuple_(table.c.project, parent, table.c.version).in_(keys[start : start + 300]))
            for row in connection.execute(statement):
                found[str(kind(row[0], row[1], row[2]))] = (row.digest, row.create_time_us, row[5] is not None)
    return found


def _suggestions(connection: Connection, models: Collection[str], unfit: Collection[int]) -> dict[str, str]:
    """Returns the newest version of each model that is there and fit; models without one are left out."""
    found: dict[str, str] = {}
    left = _collections_left(connection, unfit)
    newest = {model: _newest(connection, model, unfit) for model in models if left is None or model in left}
    while newest := {model: number for model, number in newest.items() if number}:
        names = {number: thing.name for number, thing in store.things(connection, list(newest.values())).items()}
        versions = _versions(connection, list(names.values()))
        is_there = {number: not versions.get(name, ("", 0, True))[2] for number, name in names.items()}
        found |= {model: names[number] for model, number in newest.items() if is_there[number]}
        newest = {
            model: _newest(connection, model, unfit, below=number)
            for model, number in newest.items()
            if not is_there[number]
        }
    return found


def _collections_left(connection: Connection, unfit: Collection[int]) -> set[str] | None:
    """Returns the collections of what is fit where that is little, else None: in no other can a version be found."""
    ((things,),) = rows(connection, f"SELECT coalesce(max(id), 0) FROM {LINEAGE_NODES.name}")  # noqa: S608
    if things - len(unfit) > _FEW_LEFT:
        return None
    fit = [number for number in range(1, things + 1) if number not in unfit]
    return {thing.collection for thing in store.things(connection, fit).values()}


def _newest(connection: Connection, model: str, unfit: Collection[int], below: int = 2**62) -> int:
    """Returns the newest fit version of a model, deleted ones among them, by number; 0 when there is none.

    Numbers grow with the versions of a model.
    """
    quoted = model.replace("'", "''")
    wanted = f"collection = '{quoted}' AND id < {below} ORDER BY id DESC"
    driver: Any = connection.connection  # its type does not know that cursors are iterable
    with closing(driver.cursor()) as cursor:
        cursor.execute(f"SELECT id FROM {LINEAGE_NODES.name} WHERE {wanted}")  # noqa: S608
        return next((number for (number,) in cursor if number not in unfit), 0)
