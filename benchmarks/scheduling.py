"""Scheduling policies under a virtual clock: ours against best-effort first come first served, on the same jobs.

    python -m benchmarks scheduling                                    # made-up jobs of the shape of the Philly trace
    TUNEFORGE_BENCH_TRACE=philly.csv python -m benchmarks scheduling   # a trace, see `simulation/workload.py`

448 devices in one pool for a trace, 96 for the made-up jobs. Fairness is measured on a backlog of three projects with
weights 1, 2 and 5.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks.record import Record
from services.scheduler.planning.plan import plan
from services.scheduler.simulation.clock import Cluster, Policy, Simulation
from services.scheduler.simulation.figures import Figures, figures, unfairness
from services.scheduler.simulation.rivals import best_effort_fifo, strict_fifo
from services.scheduler.simulation.workload import SimulatedJob, backlog, like_philly, read_trace

TARGET = 1 / 0.65
WEIGHTS = {"one": 1.0, "two": 2.0, "five": 5.0}


def run() -> Record:
    """Simulates and returns the record: mean completion time of ours and of the peer, in hours."""
    trace = os.environ.get("TUNEFORGE_BENCH_TRACE")
    jobs = read_trace(Path(trace)) if trace else like_philly(seed=1, jobs=2000, days=2.2)
    devices = 448 if trace else 96
    details: dict[str, float | str] = {"jobs": len(jobs), "devices": devices}
    results: dict[str, Figures] = {}
    for name, policy in (("ours", plan), ("best_effort_fifo", best_effort_fifo), ("strict_fifo", strict_fifo)):
        results[name], seconds = _simulate(jobs, Cluster(devices_per_node=devices), policy)
        details |= _named(name, results[name]) | {f"{name}_simulated_in_s": seconds}
    for name, policy in (("ours", plan), ("best_effort_fifo", best_effort_fifo)):
        in_nodes, _ = _simulate(jobs, Cluster(nodes=devices // 8, devices_per_node=8), policy)
        details |= _named(f"{name}_nodes_of_8", in_nodes)
    ours, peer = results["ours"], results["best_effort_fifo"]
    details["p99_wait_large_over_peer"] = ours.p99_wait_large_h / peer.p99_wait_large_h
    details["worst_distance_from_share"] = _unfairness()
    source = "rows of the Philly trace" if trace else "made-up jobs of the shape of the Philly trace"
    return Record(
        name="scheduling_trace" if trace else "scheduling",
        what=f"Mean completion time of {len(jobs)} {source} on {devices} devices",
        ours=ours.mean_completion_h,
        peer=peer.mean_completion_h,
        peer_name="best-effort first come first served",
        ratio=peer.mean_completion_h / ours.mean_completion_h,
        target=TARGET if trace else 1.0,
        limit=sum(job.run_ms for job in jobs) / len(jobs) / 3_600_000,
        unit="h",
        equal_output=ours.jobs == peer.jobs == len(jobs),
        command=("TUNEFORGE_BENCH_TRACE=<trace.csv> " if trace else "") + "python -m benchmarks scheduling",
        details=details,
    )


def _simulate(jobs: list[SimulatedJob], cluster: Cluster, policy: Policy) -> tuple[Figures, float]:
    began = time.monotonic()
    found = figures(Simulation(jobs, cluster, policy).run().values())
    return found, time.monotonic() - began


def _named(name: str, found: Figures) -> dict[str, float | str]:
    return {
        f"{name}_mean_completion_h": found.mean_completion_h,
        f"{name}_median_completion_h": found.median_completion_h,
        f"{name}_p99_wait_large_h": found.p99_wait_large_h,
        f"{name}_worst_project_slowdown": found.worst_project_slowdown,
        f"{name}_stops": found.stops,
    }


def _unfairness() -> float:
    jobs = backlog(projects=list(WEIGHTS), jobs=600, seed=1)
    simulation = Simulation(jobs, Cluster(nodes=8, devices_per_node=8, weights=WEIGHTS), plan)
    simulation.run(until_ms=24 * 3_600_000)
    return unfairness(simulation.given_ms, WEIGHTS)
