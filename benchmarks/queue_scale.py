"""A long queue: submits, placements and the start of a scheduler with ten thousand queued jobs.

A real registry and a real scheduler as processes, over SQLite and over PostgreSQL; clients and nodes are this process,
all on the same cores. Filling: clients submit until the queue is long, and the rate of the whole filling counts. Full:
more submits by few and by many clients, whose 99th percentile counts. Placing: nodes whose attempts end at once take
jobs off the queue; a claim is from setting about a decided placement to its commit, and the times are those of the
scheduler's `/metrics`. Restart: with a hundred thousand ended jobs beside the queue, from the start of the process to
its first page of jobs.

Decisions count twice, without gRPC (`queue_decisions.py`): `decisions_per_s` are jobs that the pure function gives
nodes, over the time that it takes with the long queue; `claims_per_s` are the same placements, written and committed.
What a served placement comes to stands beside them: `placed_per_s` is of whole lives, each a start, a stream, an
acknowledgement and five writes, and `ceiling_placed_per_s` what the processor time of all processes allows.

Processor time of each submit is kept beside the rates, for a machine that does other work too: the ceilings are what it
would give alone. Its parts in the scheduler are differences: a call whose handler does nothing; a submit that is only
looked at; one that is kept, which adds the database and the holds.

Peer: one row inserted and committed in SQLite for each submit, one after the other: the floor of a queue without any
service. The ratio is that of our rate to the wanted one.

    python -m benchmarks.queue_scale --jobs 2000 --ended 10000 --database sqlite    # a short one, no record
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sqlite3
import tempfile
import time
import urllib.request
from pathlib import Path

import grpc

from benchmarks.queue_decisions import measure_decisions
from benchmarks.queue_history import add_ended_jobs
from benchmarks.queue_load import PARENT, call, creation, probe, quick_nodes, spec_of, submit
from benchmarks.record import Record
from services.launcher import SERVICES, Suite
from services.stores.ports import METRICS_OFFSET, free_ports
from services.stores.postgres import LocalPostgres
from tests.support.tiny_model import make_tiny_model, write_rows
from tuneforge import Client
from tuneforge.v1 import scheduler_pb2, scheduler_pb2_grpc, spec_pb2

QUEUED, ENDED = 10_000, 100_000
SMALLER = 4
"""How much shorter the queue on PostgreSQL is, to keep the whole within four minutes."""
CLIENTS = 32
FULL = {1: 50, 8: 200, 32: 400, 64: 400}
"""Submits onto the long queue, by how many clients make them."""
PARTS = 1000
"""Calls for each part of a submit's cost."""
NODES, SLOTS = 8, 16
PLACED = 400
TARGET_PER_S, TARGET_P99_MS, TARGET_CLAIM_MS, TARGET_DECISIONS, TARGET_RESTART_S = 500.0, 100.0, 50.0, 1000.0, 5.0
_BUCKET = re.compile(r'tuneforge_scheduler_claim_seconds_bucket\{le="([^"]+)"\} (\S+)')

Figures = dict[str, float | str]


def run() -> Record:
    """Measures on both databases and returns the record."""
    with tempfile.TemporaryDirectory(prefix="tuneforge-bench-") as name:
        Path(name).chmod(0o755)  # where we are root, the server of PostgreSQL is somebody else
        found = measure(Path(name) / "sqlite", QUEUED, ENDED)
        server = LocalPostgres(Path(name) / "postgres")
        try:
            server.start()
            on_server = measure(Path(name) / "on-postgres", QUEUED // SMALLER, ENDED // SMALLER, server)
        finally:
            server.stop()
        floor = _floor_per_s(Path(name) / "floor.db")
    return _record(found, {f"postgres_{key}": value for key, value in on_server.items()}, floor)


def measure(folder: Path, queued: int, ended: int, postgres: LocalPostgres | None = None) -> Figures:
    """Serves, fills, places and starts anew; returns the figures by name."""
    env = {}
    for service in ("registry", "scheduler") if postgres is not None else ():
        assert postgres is not None
        postgres.create_database(service)
        address = postgres.address(service)
        env[f"TUNEFORGE_{service.upper()}_DATABASE_URL"] = str(address.url)
        env[f"TUNEFORGE_{service.upper()}_DATABASE_PASSWORD_FILE"] = str(address.password_file)
    ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
    suite = Suite(data=folder, ports=ports, extra_env=env)
    try:
        suite.start("registry", "scheduler")
        spec = prepare(suite, folder)
        found = asyncio.run(_submits(suite, spec, queued))
        found |= asyncio.run(_placements(suite))
        suite.stop("scheduler")
        stored = postgres.address("scheduler") if postgres else None
        found |= measure_decisions(folder / "scheduler", stored)
        add_ended_jobs(folder / "scheduler", ended, stored)
        return found | {"ended_jobs": ended, "restart_s": asyncio.run(_restart(suite))}
    finally:
        suite.stop()


def prepare(suite: Suite, folder: Path) -> spec_pb2.TrainingSpec:
    """Imports a tiny model and a few rows; returns a spec on them."""
    registry, scheduler, trainer, inference = map(suite.address, SERVICES)
    with Client(registry=registry, scheduler=scheduler, trainer=trainer, inference=inference) as client:
        model = client.models.import_folder(make_tiny_model(folder / "model"), "tiny")
        dataset = client.datasets.upload(write_rows(folder / "rows.jsonl", 64), "rows")
        return spec_of(model.name, dataset.name)


async def _submits(suite: Suite, spec: spec_pb2.TrainingSpec, queued: int) -> Figures:
    address = suite.address("scheduler")
    await submit(address, spec, 20, 4)
    before = _cpu_s(suite)
    filling = await submit(address, spec, queued, CLIENTS)
    spent_ms = {name: 1e3 * (after - before[name]) / queued for name, after in _cpu_s(suite).items()}
    found: Figures = {
        "queued": queued,
        **{f"fill_cpu_ms_{name}": ms for name, ms in spent_ms.items()},
        # Python computes in one thread at a time, and all processes share the cores.
        "ceiling_scheduler_per_s": 1e3 / spent_ms["scheduler"],
        "ceiling_machine_per_s": 1e3 * (os.cpu_count() or 1) / sum(spent_ms.values()),
        "load_of_machine": os.getloadavg()[0],
        "fill_per_s": filling.per_second,
        "fill_p50_ms": filling.quantile_ms(0.5),
        "fill_p99_ms": filling.quantile_ms(0.99),
        **await _parts(suite, spec, spent_ms["scheduler"]),
    }
    for clients, jobs in FULL.items():
        full = await submit(address, spec, jobs, clients)
        found[f"full_{clients}_clients_per_s"] = full.per_second
        found[f"full_{clients}_clients_p50_ms"] = full.quantile_ms(0.5)
        found[f"full_{clients}_clients_p99_ms"] = full.quantile_ms(0.99)
    return found


async def _parts(suite: Suite, spec: spec_pb2.TrainingSpec, whole_ms: float) -> Figures:
    """Returns where the scheduler's processor time of a submit goes, in milliseconds."""
    spent = []
    for ask in (probe, creation(spec, validate_only=True)):
        before = _cpu_s(suite)["scheduler"]
        await call(suite.address("scheduler"), ask, PARTS, CLIENTS)
        spent.append(1e3 * (_cpu_s(suite)["scheduler"] - before) / PARTS)
    wire_ms, looked_ms = spent
    return {
        "part_wire_cpu_ms": wire_ms,
        "part_admission_cpu_ms": looked_ms - wire_ms,
        "part_keeping_cpu_ms": whole_ms - looked_ms,
    }


def _cpu_s(suite: Suite) -> dict[str, float]:
    """Returns the processor seconds that each process has had so far."""
    pids = {name: process.pid for name, process in suite.processes.items()} | {"clients": os.getpid()}
    ticks = os.sysconf("SC_CLK_TCK")
    found = {}
    for name, pid in pids.items():
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        found[name] = (int(words[11]) + int(words[12])) / ticks
    return found


async def _placements(suite: Suite) -> Figures:
    before, cpu_before = _metrics(suite), _cpu_s(suite)
    began = time.perf_counter()
    async with quick_nodes(suite.address("scheduler"), NODES, SLOTS) as nodes:
        await asyncio.gather(*(node.until_ended(PLACED // NODES) for node in nodes))
        wall_s = time.perf_counter() - began
        after, cpu_after = _metrics(suite), _cpu_s(suite)
    placed = after["placements_total"] - before["placements_total"]
    spent_ms = {name: 1e3 * (after - cpu_before[name]) / placed for name, after in cpu_after.items()}
    return {
        "placed_per_s": placed / wall_s,
        **{f"placed_cpu_ms_{name}": ms for name, ms in spent_ms.items()},
        "ceiling_placed_per_s": min(1e3 / spent_ms["scheduler"], 1e3 * (os.cpu_count() or 1) / sum(spent_ms.values())),
        "rounds": after["decide_seconds_count"] - before["decide_seconds_count"],
        "claim_p99_at_most_ms": _claim_ms(suite, 0.99),
        "claim_p50_at_most_ms": _claim_ms(suite, 0.5),
    }


def _metrics(suite: Suite) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in _page(suite).splitlines() if line.startswith("tuneforge_scheduler_")]
    return {name.removeprefix("tuneforge_scheduler_"): float(value) for name, _, value in lines}


def _claim_ms(suite: Suite, share: float) -> float:
    """Returns the end of the histogram's bucket that holds a quantile, in milliseconds; the last one's begin."""
    buckets = [(float(end), float(count)) for end, count in _BUCKET.findall(_page(suite))]
    found = next(end for end, count in buckets if count >= share * buckets[-1][1])
    return 1e3 * min(found, buckets[-2][0])


def _page(suite: Suite) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{suite.ports['scheduler'] + METRICS_OFFSET}/metrics") as answer:
        return str(answer.read().decode())


async def _restart(suite: Suite) -> float:
    """Returns the seconds from the start of the process to its first page of jobs."""
    began = time.perf_counter()
    await asyncio.to_thread(suite.start, "scheduler")
    async with grpc.aio.insecure_channel(suite.address("scheduler")) as channel:
        stub = scheduler_pb2_grpc.SchedulerServiceStub(channel)
        await stub.ListJobs(scheduler_pb2.ListJobsRequest(parent=PARENT), wait_for_ready=True)
    return time.perf_counter() - began


def _floor_per_s(path: Path, rows: int = 300) -> float:
    """Returns how many rows a second are inserted and committed one by one, synced, without any service."""
    table = sqlite3.connect(path, isolation_level=None)
    table.execute("PRAGMA journal_mode=WAL")
    table.execute("PRAGMA synchronous=FULL")
    table.execute("CREATE TABLE queue (number INTEGER PRIMARY KEY, spec BLOB)")
    began = time.perf_counter()
    for _ in range(rows):
        table.execute("INSERT INTO queue (spec) VALUES (?)", (b"x" * 2000,))
    return rows / (time.perf_counter() - began)


def _record(found: Figures, on_server: Figures, floor: float) -> Record:
    rate = float(found["fill_per_s"])
    worst_ms = max(float(value) for key, value in found.items() if key.endswith("_p99_ms"))
    missed = {
        f"{rate:.0f} submits/s < {TARGET_PER_S:g}": rate < TARGET_PER_S,
        f"submit p99 {worst_ms:.0f} ms > {TARGET_P99_MS:g} ms": worst_ms > TARGET_P99_MS,
        "claim p99": float(found["claim_p99_at_most_ms"]) > TARGET_CLAIM_MS,
        "decisions": float(found["decisions_per_s"]) < TARGET_DECISIONS,
        "claims": float(found["claims_per_s"]) < TARGET_DECISIONS,
        "restart": float(found["restart_s"]) > TARGET_RESTART_S,
    }
    return Record(
        name="queue_scale",
        what=f"jobs submitted a second until {QUEUED} are queued, by {CLIENTS} clients",
        ours=rate,
        peer=floor,
        peer_name="rows inserted and committed one by one in SQLite, no service",
        ratio=rate / TARGET_PER_S,
        target=1.0,
        limit=floor,
        unit="1/s",
        equal_output=True,  # a submit that is not acknowledged ends the benchmark
        command="make bench NAME=queue_scale",
        details={
            **{
                key: round(value, 3) if isinstance(value, float) else value
                for key, value in (found | on_server).items()
            },
            "targets missed": ", ".join(name for name, is_missed in missed.items() if is_missed) or "none",
        },
    )


def main() -> None:
    """Prints the figures of one database."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=QUEUED)
    parser.add_argument("--ended", type=int, default=ENDED)
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tuneforge-bench-") as name:
        Path(name).chmod(0o755)
        server = LocalPostgres(Path(name) / "postgres") if chosen.database == "postgres" else None
        try:
            if server is not None:
                server.start()
            figures = measure(Path(name) / "data", chosen.jobs, chosen.ended, server)
        finally:
            if server is not None:
                server.stop()
    print("\n".join(f"{key:<32} {value}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
