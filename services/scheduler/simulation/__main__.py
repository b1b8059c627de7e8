"""`python -m services.scheduler.simulation`: policies side by side on a trace, or on made-up jobs of the same shape."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from services.scheduler.planning.plan import plan
from services.scheduler.simulation.clock import Cluster, Policy, Simulation
from services.scheduler.simulation.figures import Figures, figures
from services.scheduler.simulation.rivals import best_effort_fifo, strict_fifo
from services.scheduler.simulation.workload import InvalidTrace, SimulatedJob, like_philly, read_trace, write_trace

POLICIES: dict[str, Policy] = {
    "strict-fifo": strict_fifo,
    "best-effort-fifo": best_effort_fifo,
    "fair-share": plan,
}
_DAYS_MAX = 10_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the simulations and prints their figures; returns the exit code."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    asked.policy = asked.policy or list(POLICIES)
    if asked.devices is None:
        asked.devices = 448 if asked.trace else 96  # four fifths busy, with the Philly rows and with the default jobs
    if asked.devices < 1 or asked.nodes < 1 or asked.devices % asked.nodes:
        parser.error(f"--devices {asked.devices} must be a multiple of --nodes {asked.nodes}, both at least 1")
    if asked.jobs < 1:
        parser.error(f"--jobs {asked.jobs} must be at least 1")
    if not 0 < asked.days <= _DAYS_MAX:  # nor is nan between them
        parser.error(f"--days {asked.days:g} must be above 0 and at most {_DAYS_MAX}")
    try:
        jobs = _workload(asked)
    except (InvalidTrace, OSError) as error:
        sys.stderr.write(f"the workload cannot be used: {error}\n")
        return 2
    largest = max(job.devices for job in jobs)
    if largest > asked.devices:
        sys.stderr.write(f"a job wants {largest} devices and the cluster has {asked.devices}: give --devices\n")
        return 2
    if asked.write_trace:
        try:
            write_trace(asked.write_trace, jobs)
        except OSError as error:
            sys.stderr.write(f"the trace cannot be written: {error}\n")
            return 2
    cluster = Cluster(nodes=asked.nodes, devices_per_node=asked.devices // asked.nodes)
    results = {name: figures(Simulation(jobs, cluster, POLICIES[name]).run().values()) for name in asked.policy}
    sys.stdout.write(
        json.dumps({name: asdict(each) for name, each in results.items()}, indent=2) if asked.json else table(results)
    )
    sys.stdout.write("\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.scheduler.simulation", description=__doc__)
    parser.add_argument("--trace", type=Path, help="CSV with timestamp,duration,num_gpus,gpu_time,cluster")
    parser.add_argument("--seed", type=int, default=1, help="of the made-up workload, without --trace")
    parser.add_argument("--jobs", type=int, default=2000, help="made-up jobs")
    parser.add_argument("--days", type=float, default=2.2, help="over which the made-up jobs are submitted")
    parser.add_argument("--devices", type=int, help="devices of the cluster; default: 448 for a trace, 96 else")
    parser.add_argument("--nodes", type=int, default=1, help="nodes that they are divided over; 1: one pool")
    parser.add_argument("--policy", action="append", choices=list(POLICIES), help="may be given again; default: all")
    parser.add_argument("--write-trace", type=Path, help="write the workload as a trace too")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _workload(asked: argparse.Namespace) -> list[SimulatedJob]:
    return read_trace(asked.trace) if asked.trace else like_philly(seed=asked.seed, jobs=asked.jobs, days=asked.days)


_ROWS = {
    "jobs": ("jobs", "d"),
    "mean_completion_h": ("mean completion, h", ".2f"),
    "median_completion_h": ("median completion, h", ".2f"),
    "mean_wait_h": ("mean wait, h", ".2f"),
    "p99_wait_large_h": ("p99 wait, jobs with >= 8 devices, h", ".2f"),
    "mean_slowdown": ("mean slowdown", ".2f"),
    "worst_project_slowdown": ("slowdown of the project that fares worst", ".2f"),
    "stops": ("jobs stopped for others", "d"),
    "overhead": ("device time lost to stops", ".2%"),
}


def table(results: dict[str, Figures]) -> str:
    """Returns figures as a table, one column a policy."""
    width = max(len(label) for label, _ in _ROWS.values())
    lines = [" " * width + "".join(f"{name:>18}" for name in results)]
    for name, (label, form) in _ROWS.items():
        lines.append(
            label.ljust(width) + "".join(f"{format(getattr(each, name), form):>18}" for each in results.values())
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
