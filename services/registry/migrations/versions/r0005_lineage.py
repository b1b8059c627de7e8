"""Lineage as a graph, signatures, revocation; what stands is put into the graph."""

from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

from tuneforge.v1 import models_pb2

revision = "0005"
down_revision = "0004"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_Edge = tuple[str, str, str]


def upgrade() -> None:
    """Makes the tables and fills the graph from the versions and aliases that there are."""
    _create_graph()
    _create_signatures()
    _fill(op.get_bind())
    _await_signatures(op.get_bind())


def _create_graph() -> None:
    op.create_table(
        "lineage_nodes",
        sa.Column("id", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("project", sa.String(63), nullable=False),
        sa.Column("name", sa.String, nullable=False, unique=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("collection", sa.String, nullable=False),
        sa.Column("depth", sa.Integer, nullable=False),
    )
    op.create_index("lineage_nodes_by_collection", "lineage_nodes", ["collection"])
    op.create_table(
        "lineage_edges",
        sa.Column("child", _NUMBER, sa.ForeignKey("lineage_nodes.id"), primary_key=True),
        sa.Column("parent", _NUMBER, sa.ForeignKey("lineage_nodes.id"), primary_key=True),
        sa.Column("role", sa.String(16), primary_key=True),
    )
    op.create_index("lineage_edges_by_parent", "lineage_edges", ["parent", "child", "role"])
    op.create_table(
        "revocations",
        sa.Column("sequence", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("project", sa.String(63), nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("is_revoked", sa.Boolean, nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("time_us", sa.BigInteger, nullable=False),
    )
    op.create_index("revocations_by_name", "revocations", ["name", "sequence"])
    op.create_index("revocations_by_project", "revocations", ["project", "sequence"])


def _create_signatures() -> None:
    op.create_table(
        "signing_keys",
        sa.Column("key_id", sa.String(64), primary_key=True),
        sa.Column("public_key", sa.Text, nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.Column("endorsed_by", sa.String(64), nullable=False),
        sa.Column("endorsement", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "signatures",
        sa.Column("version", sa.String, primary_key=True),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("time_us", sa.BigInteger, nullable=False),
    )


def _fill(bind: sa.Connection) -> None:
    kinds: dict[str, tuple[str, str]] = {}  # name -> kind, collection
    edges: set[_Edge] = set()
    for row in bind.execute(sa.text("SELECT project, dataset, version FROM dataset_versions ORDER BY version")):
        collection = f"projects/{row.project}/datasets/{row.dataset}"
        kinds[f"{collection}/versions/{row.version}"] = ("DATASET_VERSION", collection)
    for row in bind.execute(sa.text("SELECT project, model, version, record FROM model_versions ORDER BY version")):
        collection = f"projects/{row.project}/models/{row.model}"
        name = f"{collection}/versions/{row.version}"
        kinds[name] = ("MODEL_VERSION", collection)
        lineage = models_pb2.ModelVersion.FromString(bytes(row.record)).lineage
        edges.update(_edges(name, lineage))
        if lineage.job:
            kinds[lineage.job] = ("JOB", "")
    for row in bind.execute(sa.text("SELECT project, model, alias, version FROM aliases")):
        collection = f"projects/{row.project}/models/{row.model}"
        alias = f"{collection}/aliases/{row.alias}"
        kinds[alias] = ("ALIAS", "")
        edges.add((alias, f"{collection}/versions/{row.version}", "ALIAS"))
    _insert(bind, kinds, {edge for edge in edges if edge[1] in kinds})


def _await_signatures(bind: sa.Connection) -> None:
    """Marks the versions that there are: the registry signs them at its next start, and none that come up later."""
    for kind, collection in (("dataset", "datasets"), ("model", "models")):
        bind.execute(
            sa.text(
                "INSERT INTO signatures (version, key_id, value, time_us) "  # noqa: S608 - words of this module
                f"SELECT 'projects/' || project || '/{collection}/' || {kind} || '/versions/' || "
                f"CAST(version AS VARCHAR), '', :empty, create_time_us FROM {kind}_versions"
            ).bindparams(empty=b"")
        )


def _edges(name: str, lineage: models_pb2.Lineage) -> Iterator[_Edge]:
    for reference, role in ((lineage.base, "BASE"), (lineage.dataset, "DATASET"), (lineage.validation, "VALIDATION")):
        if reference.version:
            yield name, reference.version, role
            if lineage.job:
                yield lineage.job, reference.version, role
    if lineage.job:
        yield name, lineage.job, "JOB"


def _insert(bind: sa.Connection, kinds: dict[str, tuple[str, str]], edges: set[_Edge]) -> None:
    depths = _depths(edges)
    nodes = sa.table("lineage_nodes", *map(sa.column, ("id", "project", "name", "kind", "collection", "depth")))
    if kinds:
        bind.execute(
            nodes.insert(),
            [
                {
                    "project": name.split("/")[1],
                    "name": name,
                    "kind": kind,
                    "collection": collection,
                    "depth": depths.get(name, 0),
                }
                for name, (kind, collection) in kinds.items()
            ],
        )
    numbers = {row.name: row.id for row in bind.execute(sa.select(nodes.c.id, nodes.c.name))}
    if edges:
        table = sa.table("lineage_edges", *map(sa.column, ("child", "parent", "role")))
        bind.execute(
            table.insert(),
            [{"child": numbers[child], "parent": numbers[parent], "role": role} for child, parent, role in edges],
        )


def _depths(edges: set[_Edge]) -> dict[str, int]:
    """Returns how many bases each version stands on; a version has one base at most, made before it."""
    base = {child: parent for child, parent, role in edges if role == "BASE"}
    depths: dict[str, int] = {}
    for name in base:
        chain = []
        while name in base and name not in depths:
            chain.append(name)
            name = base[name]
        depth = depths.get(name, 0)
        for each in reversed(chain):
            depth += 1
            depths[each] = depth
    return depths
