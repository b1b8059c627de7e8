"""What needs a version: who would be left with a name that leads nowhere if it were deleted."""

from collections.abc import Collection, Iterable
from typing import TypeVar

from sqlalchemy import Connection, and_, select, tuple_

from services.registry.lineage.things import Kind, thing_of
from services.registry.retention.resources import Holder, HolderKind, VersionName
from services.registry.tables import (
    ALIASES,
    DATASET_VERSIONS,
    GATE_POLICY_DATASETS,
    HOLDS,
    LINEAGE_EDGES,
    LINEAGE_NODES,
    MODEL_VERSIONS,
    PINS,
)
from tuneforge.names import AliasName, DatasetVersionName, ModelVersionName

T = TypeVar("T")
_NAMES_PER_QUERY = 500


def holders_of(connection: Connection, names: Collection[VersionName]) -> list[Holder]:
    """Returns what needs any of some versions, apart from these versions themselves.

    Args:
        connection: In the transaction that is to delete them.
        names: The versions, all of one data set or model.
    """
    texts = {str(name) for name in names}
    found: set[Holder] = set()
    for some in _batches(texts):
        found.update(_children(connection, some, texts))
        rows = connection.execute(select(PINS.c.name).where(PINS.c.name.in_(some)))
        found.update(Holder(name, HolderKind.PIN) for name in rows.scalars())
        rows = connection.execute(select(HOLDS.c.holder).where(HOLDS.c.version.in_(some)).distinct())
        found.update(Holder(name, _kind_of(name)) for name in rows.scalars())
    found.update(_aliases(connection, [name for name in names if isinstance(name, ModelVersionName)]))
    found.update(_policies(connection, {str(name) for name in names if isinstance(name, DatasetVersionName)}))
    return sorted(found)


def _kind_of(holder: str) -> HolderKind:
    return HolderKind.JOB if "/jobs/" in holder or "/sweeps/" in holder else HolderKind.DEPLOYMENT


def _aliases(connection: Connection, names: list[ModelVersionName]) -> Iterable[Holder]:
    if not names:
        return
    parent = names[0].parent
    statement = select(ALIASES.c.alias).where(
        ALIASES.c.project == parent.project,
        ALIASES.c.model == parent.model,
        ALIASES.c.version.in_([name.version for name in names]),
    )
    for alias in connection.execute(statement).scalars():
        yield Holder(str(AliasName(parent.project, parent.model, alias)), HolderKind.ALIAS)


def _children(connection: Connection, names: list[str], together: set[str]) -> Iterable[Holder]:
    """Yields what was made from some versions and is there: versions that live, and promotions that point to them."""
    parents = select(LINEAGE_NODES.c.id).where(LINEAGE_NODES.c.name.in_(names))
    children = (
        select(LINEAGE_NODES.c.name)
        .join(LINEAGE_EDGES, LINEAGE_EDGES.c.child == LINEAGE_NODES.c.id)
        .where(LINEAGE_EDGES.c.parent.in_(parents))
        .distinct()
    )
    versions = set()
    for name in connection.execute(children).scalars():
        kind = thing_of(name).kind
        if kind is Kind.PROMOTION:
            yield Holder(name, HolderKind.PROMOTION)
        elif kind in {Kind.DATASET_VERSION, Kind.MODEL_VERSION} and name not in together:
            versions.add(name)
    for name in living(connection, versions):
        yield Holder(name, HolderKind.VERSION)


def living(connection: Connection, names: set[str]) -> Iterable[str]:
    """Yields those of some versions, by whole name, that are there and not deleted."""
    kinds = ((DatasetVersionName, DATASET_VERSIONS, "dataset"), (ModelVersionName, MODEL_VERSIONS, "model"))
    for kind, table, parent in kinds:
        keys = {}
        for name in names:
            if f"/{parent}s/" in name:
                parsed = kind.parse(name)
                keys[parsed.project, name.split("/")[3], parsed.version] = name
        columns = (table.c.project, table.c[parent], table.c.version)
        for some in _batches(keys):
            statement = select(*columns).where(and_(tuple_(*columns).in_(some), table.c.delete_time_us.is_(None)))
            yield from (keys[tuple(row)] for row in connection.execute(statement))


def _policies(connection: Connection, names: set[str]) -> Iterable[Holder]:
    """Yields the gate policies that judge by some data."""
    table = GATE_POLICY_DATASETS.c
    for some in _batches(names):
        statement = select(table.project, table.model, table.policy).where(table.dataset.in_(some)).distinct()
        for row in connection.execute(statement):
            name = f"projects/{row.project}/models/{row.model}/policies/{row.policy}"
            yield Holder(name, HolderKind.GATE_POLICY)


def _batches(items: Iterable[T]) -> Iterable[list[T]]:
    wanted = list(items)
    for start in range(0, len(wanted), _NAMES_PER_QUERY):
        yield wanted[start : start + _NAMES_PER_QUERY]
