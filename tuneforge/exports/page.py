"""One HTML file a job: plots of all that was measured, speeds and memory too, beside what was asked for.

The file beside a version (`report.html`) has what repeats with the run; this one is made from the job's log.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from google.protobuf import json_format

from tuneforge.charts import Chart
from tuneforge.exports.history import Point, Rewind
from tuneforge.job_values import Job
from tuneforge.report_page import Section, report_page
from tuneforge.specs.wire import spec_to_proto

MOST_POINTS = 1000
"""Of one line; of a longer one every second, fourth, ... point is drawn, and the last."""
_TITLES = {
    "train/loss": "Loss of each step",
    "eval/loss": "Validation loss",
    "train/learning_rate": "Learning rate",
    "train/grad_norm": "Norm of the gradients before clipping",
    "train/tokens_per_second": "Tokens a second",
    "train/step_seconds": "Seconds of each step",
    "system/memory_bytes": "Memory of the worker in bytes",
    "system/cpu_percent": "Processor use of the worker in percent of one core",
}
"""Drawn first, in this order; then the others by their names."""
_LEFT_OUT = ("train/epoch",)
"""A straight line."""


class PageExport:
    """Writes a job's page; use it with `with`. The page is whole after `begin` and after `end`."""

    def __init__(self, path: Path) -> None:
        """Takes the file; its folder is made when missing."""
        self._path = path
        self._values: dict[str, dict[int, float]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def begin(self, job: Job, points: Iterable[Point]) -> str:
        """Writes what is known so far and returns the path of the file."""
        self.add(list(points))
        self._write(job)
        return str(self._path)

    def add(self, changes: Sequence[Point | Rewind]) -> None:
        """Takes what is new; it is written at the end."""
        for change in changes:
            if isinstance(change, Point):
                self._values.setdefault(change.name, {})[change.step] = change.value
            else:
                for values in self._values.values():
                    for step in [step for step in values if step >= change.step]:
                        del values[step]

    def end(self, job: Job) -> None:
        """Writes the page of a job that has ended."""
        self._write(job)

    def _write(self, job: Job) -> None:
        order = {name: number for number, name in enumerate(_TITLES)}
        names = sorted(set(self._values) - set(_LEFT_OUT), key=lambda name: (order.get(name, len(order)), name))
        charts = [
            Chart(title=_TITLES.get(name, name), x_label="steps", y_label=name, points=_points(self._values[name]))
            for name in names
        ]
        spec = json_format.MessageToJson(spec_to_proto(job.spec), preserving_proto_field_name=True, sort_keys=True)
        sections = [
            Section(title="Job", facts=_facts(job)),
            Section(title="Run", charts=charts),
            Section(title="Spec", text=spec),
        ]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        writing = self._path.with_name(f".{self._path.name}.writing")
        writing.write_text(report_page(job.id, sections), encoding="utf-8")
        writing.replace(self._path)


def _points(values: dict[int, float]) -> list[tuple[float, float]]:
    points = [(float(step), values[step]) for step in sorted(values)]
    stride = 1
    while len(points) > MOST_POINTS * stride:
        stride *= 2
    kept = points[::stride]
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]


def _facts(job: Job) -> dict[str, str]:
    content = {
        "state": str(job.state),
        "why it failed": f"{job.failure.message} {job.failure.cure}" if job.failure else "",
        "attempts": str(job.attempt),
        "steps": f"{job.step} of {job.total_steps}",
        "base": f"{job.base.version} ({job.base.digest[:12]})" if job.base else "",
        "data": f"{job.train.version} ({job.train.digest[:12]})" if job.train else "",
        "validation data": f"{job.validation.version} ({job.validation.digest[:12]})" if job.validation else "",
        "version": f"{job.version.version} ({job.version.digest[:12]})" if job.version else "",
        "created": f"{job.create_time.isoformat(timespec='seconds')} by {job.creator}",
        "ended": job.end_time.isoformat(timespec="seconds") if job.end_time else "",
        "labels": ", ".join(f"{key}={value}" for key, value in sorted(job.labels.items())),
    }
    return {name: value for name, value in content.items() if value}
