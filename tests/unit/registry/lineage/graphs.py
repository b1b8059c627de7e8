"""Random histories of a project: the database that they leave, and a plain model of them in memory."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from hypothesis import strategies as st
from sqlalchemy import Connection, delete, insert

from services.grpckit.database import Database
from services.registry.lineage.store import add_edges, replace_edges
from services.registry.lineage.things import Role
from services.registry.tables import (
    ALIASES,
    DATASET_VERSIONS,
    DATASETS,
    LINEAGE_EDGES,
    LINEAGE_NODES,
    MIGRATIONS,
    MODEL_VERSIONS,
    MODELS,
    REVOCATIONS,
    SCHEMA_HEAD,
)
from tests.support.postgres import postgres_of

T = TypeVar("T")
P = "projects/p"


@dataclass(slots=True)
class History:
    """What was made from what: name -> {(parent, role)}, in the order of making."""

    edges: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    """Alias -> the version that it names."""

    def reached(self, start: str, *, up: bool, roles: frozenset[str] | None = None) -> dict[str, int]:
        """Returns name -> distance of all that is reached, by trying every edge again and again."""
        found = {name: 0 for name in self.edges if name == start or name.startswith(f"{start}/versions/")}
        level = 0
        while True:
            level += 1
            new = {
                there
                for child, parents in self.edges.items()
                for parent, role in parents
                if roles is None or role in roles
                for here, there in [(child, parent) if up else (parent, child)]
                if here in found and there not in found
            }
            if not new:
                return found
            found.update(dict.fromkeys(new, level))

    def versions(self, collection: str) -> list[str]:
        """Returns the versions of a data set or a model, oldest first."""
        return [name for name in self.edges if name.startswith(f"{collection}/versions/")]


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Draws data sets, trainings on them (with jobs, bases and validation data) and aliases that move."""
    history = History()
    counts: dict[str, int] = {}

    def new(collection: str) -> str:
        counts[collection] = counts.get(collection, 0) + 1
        return f"{collection}/versions/{counts[collection]}"

    for number in range(draw(st.integers(1, 14))):
        data = [name for name in history.edges if "/datasets/" in name]
        models = [name for name in history.edges if "/models/" in name and "/versions/" in name]
        kind = draw(st.sampled_from(["data", "import", "train", "train", "train", "alias"]))
        if kind == "data" or not data:
            parents = draw(st.lists(st.sampled_from(data), max_size=2)) if data else []
            history.edges[new(f"{P}/datasets/d{draw(st.integers(0, 2))}")] = {(name, "PARENT") for name in parents}
        elif kind == "import" or not models:
            history.edges[new(f"{P}/models/m{draw(st.integers(0, 2))}")] = {("https://x.test/w", "SOURCE")}
        elif kind == "train":
            inputs = {(draw(st.sampled_from(models)), "BASE"), (draw(st.sampled_from(data)), "DATASET")}
            if draw(st.booleans()):
                inputs.add((draw(st.sampled_from(data)), "VALIDATION"))
            job = f"{P}/jobs/j{number}"
            history.edges[job] = inputs
            history.edges[new(f"{P}/models/m{draw(st.integers(0, 2))}")] = inputs | {(job, "JOB")}
        else:
            version = draw(st.sampled_from(models))
            alias = f"{version.partition('/versions/')[0]}/aliases/a{draw(st.integers(0, 1))}"
            history.aliases[alias] = version
    for alias, version in history.aliases.items():
        history.edges[alias] = {(version, "ALIAS")}
    for source in {parent for parents in list(history.edges.values()) for parent, role in parents if role == "SOURCE"}:
        history.edges[source] = set()
    return history


@dataclass(frozen=True, slots=True)
class Stored:
    """A database with a history in it."""

    database: Database

    def do(self, run: Callable[[Connection], T]) -> T:
        """Runs a function in a transaction."""
        return self.database.write_sync(run)


def empty_database(folder: Path) -> Stored:
    """Returns a new database."""
    database = Database(
        folder / "registry.sqlite",
        migrations=MIGRATIONS,
        schema_head=SCHEMA_HEAD,
        postgres=postgres_of("registry", folder),
    )
    database.open()
    return Stored(database)


def fill_anew(connection: Connection, history: History) -> None:
    """Writes a history in the place of what was there; making a database takes longer than all of a test."""
    for table in (
        ALIASES,
        LINEAGE_EDGES,
        LINEAGE_NODES,
        REVOCATIONS,
        MODEL_VERSIONS,
        DATASET_VERSIONS,
        MODELS,
        DATASETS,
    ):
        connection.execute(delete(table))
    fill(connection, history)


def fill(connection: Connection, history: History) -> None:
    """Writes rows and edges of a history."""
    collections = {name.partition("/versions/")[0] for name in history.edges if "/versions/" in name}
    for collection in sorted(collections):
        table = DATASETS if "/datasets/" in collection else MODELS
        row = {"project": "p", "id": collection.split("/")[3], "description": "", "create_time_us": 1, "creator": "c"}
        connection.execute(insert(table).values(**row, latest=len(history.versions(collection))))
    for name, parents in history.edges.items():
        if "/versions/" in name:
            _version(connection, name)
        if "/aliases/" in name:
            model = name.partition("/aliases/")[0]
            for version in history.versions(model):  # it was at other versions before
                replace_edges(connection, name, [(version, Role.ALIAS)])
            replace_edges(connection, name, [(parent, Role(role)) for parent, role in parents])
            _alias(connection, name, history.aliases[name])
        elif name.startswith("projects/"):
            add_edges(connection, name, [(parent, Role(role)) for parent, role in sorted(parents)])


def _version(connection: Connection, name: str) -> None:
    _, project, kind, collection, _, version = name.split("/")
    row = {
        "project": project,
        "version": int(version),
        "digest": f"{version:0>64}",
        "size_bytes": 1,
        "create_time_us": 1_000_000,
        "creator": "c",
    }
    if kind == "datasets":
        row |= {"dataset": collection, "shape": "MESSAGES", "rows": 1, "manifest": b"{}"}
        connection.execute(insert(DATASET_VERSIONS).values(**row))
    else:
        row |= {"model": collection, "kind": "MODEL", "record": b"", "tensors": b""}
        connection.execute(insert(MODEL_VERSIONS).values(**row))


def _alias(connection: Connection, name: str, version: str) -> None:
    _, project, _, model, _, alias = name.split("/")
    number = int(version.rpartition("/")[2])
    key = {"project": project, "model": model, "alias": alias}
    connection.execute(insert(ALIASES).values(**key, version=number, sequence=1, position=1, update_time_us=1))
