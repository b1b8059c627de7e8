"""Revoked data: the log of revocations, and what is tainted by them.

Nothing is marked beside the data itself: whether a version is tainted follows from the graph at the moment of asking,
so that what is published later is tainted too, and what is taken back is clean everywhere at once. Data that a run was
only validated on does not taint its result: nothing was learned from it.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, Row, func, insert, select

from services.grpckit.errors import Reason, ServiceError
from services.grpckit.pages import Page
from services.registry.lineage.graph import Direction, Walk, batches, everything
from services.registry.lineage.sight import Sees
from services.registry.lineage.things import LEARNED, thing_of
from services.registry.tables.lineage import LINEAGE_NODES, REVOCATIONS
from tuneforge.names import project_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """That data is revoked, or is not any more."""

    name: str
    """The data set or version."""
    is_revoked: bool
    actor: str
    reason: str
    time_us: int
    sequence: int = 0
    """Number in the log; 0 until it is in it."""


HIDDEN = Revocation(name="", is_revoked=True, actor="", reason="", time_us=0)
"""What is told of a revocation in a project that the caller may not touch."""

# Built once: to build a query costs more than to run it.
_STANDING = select(REVOCATIONS).where(
    REVOCATIONS.c.sequence.in_(select(func.max(REVOCATIONS.c.sequence)).group_by(REVOCATIONS.c.name)),
    REVOCATIONS.c.is_revoked.is_(True),
)


def standing(connection: Connection) -> dict[str, Revocation]:
    """Returns the revocations that are in force, by the name of what is revoked."""
    return {row.name: _revocation(row) for row in connection.execute(_STANDING)}


def add(connection: Connection, change: Revocation) -> Revocation:
    """Adds an entry to the log; one that changes nothing is left out, and the entry that stands is returned.

    Raises:
        ServiceError: `WRONG_STATE`: what is to be taken back is not revoked.
    """
    found = standing(connection).get(change.name)
    if change.is_revoked and found is not None:
        return found
    if not change.is_revoked and found is None:
        raise ServiceError(
            Reason.WRONG_STATE,
            f"{change.name} is not revoked; a revocation of the whole data set is taken back by the data set's name",
            metadata={"name": change.name},
        )
    statement = insert(REVOCATIONS).values(
        project=project_of(change.name),
        name=change.name,
        is_revoked=change.is_revoked,
        actor=change.actor,
        reason=change.reason,
        time_us=change.time_us,
    )
    row = connection.execute(statement.returning(REVOCATIONS)).one()
    return _revocation(row)


def log(connection: Connection, parent: str, page: Page) -> list[Revocation]:
    """Returns a page's entries of the log of a project, data set or version, newest first, and one more if there is."""
    before = page.after_number(2**62)
    statement = select(REVOCATIONS).where(REVOCATIONS.c.sequence < before)
    if parent.count("/") == 1:
        statement = statement.where(REVOCATIONS.c.project == project_of(parent))
    else:
        statement = statement.where(REVOCATIONS.c.name == parent)
    rows = connection.execute(statement.order_by(REVOCATIONS.c.sequence.desc()).limit(page.size + 1))
    return [_revocation(row) for row in rows]


def taints(connection: Connection, names: Sequence[str]) -> dict[str, tuple[Revocation, ...]]:
    """Returns for each of some versions the revocations that it or what it learned from falls under; most have none."""
    revoked = standing(connection)
    if not revoked:
        return {}
    statement = select(LINEAGE_NODES.c.id, LINEAGE_NODES.c.name).where(LINEAGE_NODES.c.name.in_(list(names)))
    numbers = {row.id: row.name for row in connection.execute(statement)}
    walk = Walk(Direction.ANCESTORS, LEARNED)
    walk.begin(numbers)
    while walk.step(connection, lambda _, reached: reached):
        pass
    made_from: dict[int, list[int]] = defaultdict(list)
    for child, parent, _ in walk.edges:
        made_from[parent].append(child)
    found: dict[str, dict[str, Revocation]] = defaultdict(dict)
    for number, revocation in _revoked_among(connection, revoked, walk.seen):
        for reached in _below(number, made_from):
            if reached in numbers:
                found[numbers[reached]][revocation.name] = revocation
    return {name: tuple(each[key] for key in sorted(each)) for name, each in found.items()}


def tainted_numbers(connection: Connection) -> set[int]:
    """Returns everything that is revoked or learned from something that is."""
    revoked = standing(connection)
    if not revoked:
        return set()
    statement = select(LINEAGE_NODES.c.id).where(
        LINEAGE_NODES.c.name.in_(list(revoked)) | LINEAGE_NODES.c.collection.in_(list(revoked))
    )
    return everything(connection, connection.execute(statement).scalars(), Direction.DESCENDANTS, roles=LEARNED)


def seen_by(found: Sequence[Revocation], sees: Sees) -> tuple[Revocation, ...]:
    """Returns revocations as somebody may see them: all those of other projects are one, without name and words."""
    named = tuple(each for each in found if sees(project_of(each.name)))
    return named if len(named) == len(found) else (*named, HIDDEN)


def require_usable(connection: Connection, name: str) -> None:
    """Refuses the use of a version that is revoked or tainted.

    A refusal is kept and passed on, so it names data of the version's own project only; whoever may touch the others
    reads it in the version.

    Raises:
        ServiceError: `REVOKED`, naming the data, and when, by whom and why it was revoked; of data of another project
            that it is revoked, and nothing else.
    """
    if found := taints(connection, [name]).get(name):
        raise refusal(name, seen_by(found, lambda project: project == project_of(name)))


def refusal(name: str, found: Sequence[Revocation]) -> ServiceError:
    """Returns the error that says why a version may not be used."""
    first = found[0]
    if first == HIDDEN:
        what = f"{name} was made from data of another project, which is revoked"
        return ServiceError(Reason.REVOKED, what, metadata={"name": name})
    when = datetime.fromtimestamp(first.time_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M UTC")
    is_itself = name == first.name or thing_of(name).collection == first.name
    what = f"{name} is revoked" if is_itself else f"{name} was made from {first.name}, which is revoked"
    more = f" (and {len(found) - 1} more revocations)" if len(found) > 1 else ""
    return ServiceError(
        Reason.REVOKED,
        f"{what}: by {first.actor} on {when}: {first.reason}{more}",
        metadata={"name": name, "revoked": first.name, "actor": first.actor, "time": when, "reason": first.reason},
    )


def _revoked_among(
    connection: Connection, revoked: dict[str, Revocation], seen: Collection[int]
) -> Iterable[tuple[int, Revocation]]:
    columns = LINEAGE_NODES.c.id, LINEAGE_NODES.c.name, LINEAGE_NODES.c.collection
    for some in batches(seen):
        for row in connection.execute(select(*columns).where(LINEAGE_NODES.c.id.in_(some))):
            for name in (row.name, row.collection):
                if name in revoked:
                    yield row.id, revoked[name]


def _below(number: int, made_from: dict[int, list[int]]) -> set[int]:
    seen = {number}
    front = [number]
    while front:
        front = [child for each in front for child in made_from.get(each, ()) if child not in seen]
        seen.update(front)
    return seen


def _revocation(row: Row[tuple[int, str, str, bool, str, str, int]]) -> Revocation:
    return Revocation(
        name=row.name,
        is_revoked=row.is_revoked,
        actor=row.actor,
        reason=row.reason,
        time_us=row.time_us,
        sequence=row.sequence,
    )
