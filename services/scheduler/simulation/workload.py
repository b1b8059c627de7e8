"""What a simulation runs: jobs of a trace, or made-up ones of the same shape."""

from __future__ import annotations

import csv
import io
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

COLUMNS = ("timestamp", "duration", "num_gpus", "gpu_time", "cluster")
"""Columns of a trace, as in the CSV files of the Philly traces that are passed around."""


class InvalidTrace(Exception):
    """A line of a trace cannot be read; the text says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedJob:
    """One job of a workload."""

    number: int
    project: str
    submit_ms: int
    """Since the beginning of the workload."""
    run_ms: int
    """How long it runs on its devices, stops left out, >= 1."""
    devices: int
    """Devices that it needs at once, >= 1."""


def read_trace(path: Path, *, longest_hours: float = 120.0) -> list[SimulatedJob]:
    """Reads a trace: one row a job, with the columns of `COLUMNS`.

    Args:
        path: A CSV file with a header.
        longest_hours: Longer jobs are cut to this; traces have a few that ran for weeks.

    Raises:
        InvalidTrace: a column is missing or a value cannot be read; the text names the line.
        OSError: the file cannot be read.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidTrace(f"{path.name} is not UTF-8 text: save it as UTF-8") from None
    with io.StringIO(text, newline="") as lines:
        reader = csv.DictReader(lines)
        if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
            raise InvalidTrace(f"{path.name} lacks the columns {', '.join(missing)}; it needs {', '.join(COLUMNS)}")
        rows = [_row(path.name, number, row) for number, row in enumerate(reader, start=2)]
    if not rows:
        raise InvalidTrace(f"{path.name} has no job")
    rows.sort(key=lambda row: row[0])
    begin = rows[0][0]
    return [
        SimulatedJob(
            number=number,
            project=project,
            submit_ms=round((submit - begin) * 1000),
            run_ms=max(1, round(min(duration, longest_hours * 3600) * 1000)),
            devices=devices,
        )
        for number, (submit, duration, devices, project) in enumerate(rows)
    ]


def _row(file: str, line: int, row: dict[str, str]) -> tuple[float, float, int, str]:
    try:
        # Traces have local times without a zone; only their differences count here.
        submit = datetime.fromisoformat(row["timestamp"]).replace(tzinfo=UTC).timestamp()
        duration, devices = float(row["duration"]), int(row["num_gpus"])
    except (ValueError, TypeError) as error:
        raise InvalidTrace(f"{file}, line {line}: {error}") from error
    if not (math.isfinite(duration) and duration >= 0 and devices >= 1):
        raise InvalidTrace(f"{file}, line {line}: a job needs a duration >= 0 and num_gpus >= 1")
    return submit, duration, devices, row["cluster"]


def write_trace(path: Path, jobs: Iterable[SimulatedJob]) -> None:
    """Writes jobs as a trace that `read_trace` reads."""
    begin = datetime(2026, 1, 1)
    with path.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(COLUMNS)
        for job in jobs:
            submit = begin + timedelta(milliseconds=job.submit_ms)
            seconds = job.run_ms / 1000
            writer.writerow([submit.isoformat(sep=" "), seconds, job.devices, seconds * job.devices, job.project])


_SIZES = ((1, 0.893), (2, 0.025), (4, 0.035), (8, 0.042), (16, 0.005))
"""Devices of a job and how often, as in ten days of the Philly trace; its five jobs of 32 are left out."""
_PROJECTS = ((0.55, 0), (0.22, 1), (0.09, 2), (0.04, 3), (0.035, 4), (0.065, 5))
"""Share of the jobs by project: a few projects submit most of them."""


def like_philly(*, seed: int, jobs: int, days: float) -> list[SimulatedJob]:
    """Makes a workload of the shape of the Philly trace.

    Run times are log-normal with a median of 8 minutes and a tail of days; submits come in bursts, more by day than by
    night; nine of ten jobs want one device.

    Args:
        seed: The same seed makes the same workload.
        jobs: How many.
        days: Over which time they are submitted.
    """
    chance = random.Random(seed)  # noqa: S311 - a workload, not a secret
    submits = sorted(_submit_s(chance, days) for _ in range(jobs))
    made = []
    for number, submit_s in enumerate(submits):
        devices = _weighted(chance, _SIZES)
        run_s = min(5 * 86_400.0, max(10.0, chance.lognormvariate(math.log(480.0), 2.4)))
        project = f"project-{_weighted(chance, [(index, share) for share, index in _PROJECTS])}"
        made.append(
            SimulatedJob(
                number=number,
                project=project,
                submit_ms=int(submit_s * 1000),
                run_ms=int(run_s * 1000),
                devices=devices,
            )
        )
    return made


def _submit_s(chance: random.Random, days: float) -> float:
    while True:
        moment = chance.random() * days
        by_day = 0.6 + 0.4 * math.sin(2 * math.pi * (moment - 0.25))
        in_burst = 1.0 if math.floor(moment * 8) % 3 == 0 else 0.5
        if chance.random() < by_day * in_burst:
            return moment * 86_400


def _weighted(chance: random.Random, choices: Sequence[tuple[int, float]]) -> int:
    return chance.choices([value for value, _ in choices], [weight for _, weight in choices])[0]


def backlog(*, projects: Sequence[str], jobs: int, seed: int) -> list[SimulatedJob]:
    """Makes a workload in which every project has more work than it can get, all the time.

    Args:
        projects: Their ids.
        jobs: Jobs of each of them.
        seed: The same seed makes the same workload.
    """
    chance = random.Random(seed)  # noqa: S311 - a workload, not a secret
    return [
        SimulatedJob(
            number=index * len(projects) + place,
            project=project,
            submit_ms=index,
            run_ms=int(chance.lognormvariate(math.log(3600.0), 1.0) * 1000),
            devices=chance.choice((1, 1, 1, 1, 2, 4, 8)),
        )
        for index in range(jobs)
        for place, project in enumerate(projects)
    ]
