"""How long questions about lineage take in a graph of many things, against a walk with one query for each thing.

    python -m benchmarks.lineage --nodes 100000

Each question has a limit, LIMIT_MS, beside the comparison; the record says whether all keep it.
The graph is a history like that of a busy registry: data sets, trainings on them (a job and a version each) on bases
made before, and an alias for every hundredth version. The registry's own functions run on its own tables in SQLite; the
naive walk asks the same tables for the neighbours of one thing at a time, which is what following the lineage in the
answers of `GetModelVersion` amounts to, without the network. Both are measured in processor time: the graph lies in
memory, so nothing waits, and what else the machine does must not count.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, insert, select

from benchmarks.record import Record
from services.grpckit.context import ALL_PROJECTS, Principal
from services.grpckit.database import Database
from services.grpckit.pages import Page
from services.registry.lineage import queries, revocations
from services.registry.lineage.graph import Direction, everything
from services.registry.lineage.queries import Question
from services.registry.lineage.revocations import Revocation
from services.registry.lineage.sight import sight_of
from services.registry.tables import (
    ALIASES,
    DATASET_VERSIONS,
    DATASETS,
    LINEAGE_EDGES,
    LINEAGE_NODES,
    MIGRATIONS,
    MODEL_VERSIONS,
    MODELS,
    SCHEMA_HEAD,
)

T = TypeVar("T")
P = "projects/p"
ALL = sight_of(Principal(name="benchmark", roles=frozenset(), projects=frozenset({ALL_PROJECTS})))
ROOT = f"{P}/datasets/root/versions/1"
MODELS_USED = 200
BATCH = 10_000
NODES = 100_000
REPEATS = 7
LIMIT_MS = 100.0
"""Processor time that a question may take, at the median of its repeats."""
QUESTIONS = ("all_descendants", "first_page_of_descendants", "ancestors_page", "path", "affected_aliases")


def run(nodes: int = NODES, repeats: int = REPEATS) -> Record:
    """Measures and returns the record."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder) / "registry.sqlite", migrations=MIGRATIONS, schema_head=SCHEMA_HEAD)
        database.open()
        try:
            details = measure(database, nodes, repeats)
        finally:
            database.close()
    slowest = max(QUESTIONS, key=lambda question: details[f"{question}_ms"])
    details |= {
        "query_limit_ms": LIMIT_MS,
        "slowest_query": slowest,
        "queries_within_limit": "yes" if details[f"{slowest}_ms"] <= LIMIT_MS else "no",
    }
    return Record(
        name="lineage",
        what=(
            f"Everything downstream of a data set, in a graph of {nodes} things; each query of the details may take "
            f"{LIMIT_MS:g} ms of processor time"
        ),
        ours=details["all_descendants_ms"],
        peer=details["naive_walk_ms"],
        peer_name="one query for each thing",
        ratio=details["naive_walk_ms"] / details["all_descendants_ms"],
        target=10.0,
        limit=details["reading_every_edge_ms"],
        unit="ms",
        equal_output=True,  # `measure` fails when the two found different things
        command="python -m benchmarks lineage",
        details=details,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints; keeps no record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=NODES, help="things in the graph")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="times that each question is asked")
    options = parser.parse_args(arguments)
    for name, value in run(options.nodes, options.repeats).details.items():
        print(f"{name:<44} {value}")


def measure(database: Database, nodes: int, repeats: int) -> dict[str, Any]:
    """Fills a database and asks it."""
    begin = time.perf_counter()
    edges, leaf = database.write_sync(lambda connection: fill(connection, nodes))
    result: dict[str, Any] = {"nodes": nodes, "edges": edges, "fill_s": round(time.perf_counter() - begin, 1)}

    def timed(name: str, ask: Callable[[Connection], T]) -> T:
        spent = []
        for _ in range(repeats):
            start = time.process_time()
            answer = database.read_sync(ask)
            spent.append((time.process_time() - start) * 1000)
        result[f"{name}_ms"] = round(statistics.median(spent), 1)
        result[f"{name}_worst_ms"] = round(max(spent), 1)
        return answer

    page = Page(scope="", size=1000, after=None)
    down = Question(name=ROOT, direction=Direction.DESCENDANTS)
    up = Question(name=leaf, direction=Direction.ANCESTORS)
    reached = timed("all_descendants", lambda c: everything(c, queries.start_of(c, ROOT), Direction.DESCENDANTS))
    result["descendants_of_root"] = len(reached) - 1
    timed("first_page_of_descendants", lambda c: queries.ask(c, down, page, ALL))
    ancestors = timed("ancestors_page", lambda c: queries.ask(c, up, page, ALL))
    result["ancestors_on_page"] = len(ancestors.nodes)
    found = timed("path", lambda c: queries.path(c, leaf, ROOT, ALL))
    result["path_length"] = len(found.nodes)
    aliases = timed("affected_aliases", lambda c: queries.affected_aliases(c, ROOT, ALL))
    result["aliases"] = len(aliases)
    timed("taints_without_revocation", lambda c: revocations.taints(c, [leaf]))
    change = Revocation(name=ROOT, is_revoked=True, actor="b", reason="b", time_us=1)
    database.write_sync(lambda c: revocations.add(c, change))
    timed("taints_with_revocation", lambda c: revocations.taints(c, [leaf]))
    start = time.process_time()
    walked = database.read_sync(naive)
    result["naive_walk_ms"] = round((time.process_time() - start) * 1000, 1)
    if walked != reached:
        raise AssertionError(f"the naive walk found {len(walked)} things, the registry {len(reached)}")
    every = select(LINEAGE_EDGES.c.child, LINEAGE_EDGES.c.parent)
    timed("reading_every_edge", lambda c: c.execute(every).all())
    return result


def naive(connection: Connection) -> set[int]:
    """Walks down with one query for each thing."""
    (root,) = queries.start_of(connection, ROOT)
    seen, front = {root}, [root]
    while front:
        number = front.pop()
        rows = connection.execute(select(LINEAGE_EDGES.c.child).where(LINEAGE_EDGES.c.parent == number))
        for child in rows.scalars():
            if child not in seen:
                seen.add(child)
                front.append(child)
    return seen


def fill(connection: Connection, nodes: int) -> tuple[int, str]:
    """Writes the graph and the rows that belong to it; returns how many edges it has, and the newest version."""
    chance = random.Random(7)
    things: list[dict[str, Any]] = [_thing(1, ROOT, "DATASET_VERSION")]
    edges: list[dict[str, Any]] = []
    versions: list[int] = []
    rows: list[dict[str, Any]] = []
    aliases: list[dict[str, Any]] = []
    counts = [0] * MODELS_USED

    def join(child: int, parent: int, role: str) -> None:
        edges.append({"child": child, "parent": parent, "role": role})

    while len(things) < nodes - 2:
        job, made = len(things) + 1, len(things) + 2
        model = chance.randrange(MODELS_USED)
        counts[model] += 1
        name = f"{P}/models/m{model}/versions/{counts[model]}"
        things += [_thing(job, f"{P}/jobs/j{job}", "JOB"), _thing(made, name, "MODEL_VERSION")]
        inputs = [(1, "DATASET")] if not versions or chance.random() < 0.05 else []
        if versions:
            inputs.append((chance.choice(versions[-3000:]), "BASE"))
        for parent, role in inputs:
            join(job, parent, role)
            join(made, parent, role)
        join(made, job, "JOB")
        versions.append(made)
        rows.append(_version(model, counts[model]))
        if made % 100 == 0 or made % 100 == 1:
            alias = len(things) + 1
            things.append(_thing(alias, f"{P}/models/m{model}/aliases/a{alias}", "ALIAS"))
            join(alias, made, "ALIAS")
            aliases.append(_alias(model, alias, counts[model]))
    _write(connection, things, edges, rows, aliases)
    return len(edges), next(thing["name"] for thing in reversed(things) if thing["kind"] == "MODEL_VERSION")


def _write(connection: Connection, things: list[Any], edges: list[Any], rows: list[Any], aliases: list[Any]) -> None:
    times = {"create_time_us": 1, "creator": "b"}
    connection.execute(insert(DATASETS).values(project="p", id="root", description="", latest=1, **times))
    data = {"shape": "MESSAGES", "rows": 1, "size_bytes": 1, "manifest": b"{}", "digest": "0" * 64}
    connection.execute(insert(DATASET_VERSIONS).values(project="p", dataset="root", version=1, **data, **times))
    models = [{"project": "p", "id": f"m{n}", "description": "", "latest": 1, **times} for n in range(MODELS_USED)]
    connection.execute(insert(MODELS), models)
    for table, all_rows in (
        (MODEL_VERSIONS, rows),
        (ALIASES, aliases),
        (LINEAGE_NODES, things),
        (LINEAGE_EDGES, edges),
    ):
        for start in range(0, len(all_rows), BATCH):
            connection.execute(insert(table), all_rows[start : start + BATCH])


def _thing(number: int, name: str, kind: str) -> dict[str, Any]:
    collection = name.partition("/versions/")[0] if "/versions/" in name else ""
    return {"id": number, "project": "p", "name": name, "kind": kind, "collection": collection, "depth": 0}


def _version(model: int, version: int) -> dict[str, Any]:
    key = {"project": "p", "model": f"m{model}", "version": version, "digest": "0" * 64, "kind": "MODEL"}
    return {**key, "size_bytes": 1, "record": b"", "tensors": b"", "create_time_us": 1, "creator": "b"}


def _alias(model: int, alias: int, version: int) -> dict[str, Any]:
    key = {"project": "p", "model": f"m{model}", "alias": f"a{alias}", "version": version}
    return {**key, "sequence": 1, "position": alias, "update_time_us": 1}


if __name__ == "__main__":
    main()
