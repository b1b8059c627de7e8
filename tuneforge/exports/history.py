"""A job's history as points: one for each figure and step, that of the newest attempt, as runs are drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from tuneforge.events import EvaluationMetrics, Event, ResumedFrom, StepMetrics, TaskMetrics
from tuneforge.telemetry import DeviceMetrics


@dataclass(frozen=True, slots=True)
class Point:
    """One figure at one step."""

    name: str
    """Such as `train/loss`."""
    step: int
    value: float
    time: datetime


@dataclass(frozen=True, slots=True)
class Rewind:
    """Points from this step on are void: an attempt begins before them again."""

    step: int
    time: datetime


@dataclass(slots=True)
class History:
    """A fold over a job's events; `take` them in their order."""

    _points: dict[str, dict[int, Point]] = field(default_factory=dict)
    _step: int = 0

    def take(self, event: Event) -> list[Point | Rewind]:
        """Takes one event and returns what is new by it."""
        match event.payload:
            case ResumedFrom() as resumed:
                return self._rewind(resumed.step + 1, event.time)
            case StepMetrics() as step:
                # An attempt that began again from nothing says so by its steps alone.
                void = self._rewind(step.step, event.time) if step.step <= self._step else []
                self._step = step.step
                return [*void, *self._keep(_of_step(step), step.step, event.time)]
            case EvaluationMetrics() as evaluation:
                return self._keep({"eval/loss": evaluation.loss}, evaluation.step, event.time)
            case TaskMetrics() as measured:
                rows = "eval" if measured.is_validation else "train"
                values = {f"{rows}/{name}": value for name, value in measured.values.items()}
                return self._keep(values, measured.step, event.time)
            case DeviceMetrics() as sample:
                return self._keep(_of_device(sample, event.node_rank), self._step, event.time)
            case _:
                return []

    def points(self) -> Iterator[Point]:
        """Yields every point, by time, then by name."""
        found = [point for points in self._points.values() for point in points.values()]
        yield from sorted(found, key=lambda point: (point.time, point.step, point.name))

    def _keep(self, values: dict[str, float], step: int, time: datetime) -> list[Point | Rewind]:
        points = [Point(name, step, value, time) for name, value in values.items()]
        for point in points:
            self._points.setdefault(point.name, {})[step] = point
        return list(points)

    def _rewind(self, step: int, time: datetime) -> list[Point | Rewind]:
        is_void = False
        for points in self._points.values():
            for each in [known for known in points if known >= step]:
                del points[each]
                is_void = True
        self._step = min(self._step, step - 1)
        return [Rewind(step, time)] if is_void else []


def _of_step(step: StepMetrics) -> dict[str, float]:
    return {
        "train/loss": step.loss,
        "train/learning_rate": step.learning_rate,
        "train/grad_norm": step.grad_norm,
        "train/epoch": step.epoch,
        "train/tokens_per_second": step.tokens_per_second,
        "train/step_seconds": step.step_seconds,
    }


def _of_device(sample: DeviceMetrics, node_rank: int) -> dict[str, float]:
    """What one sample says, at the newest step: the last sample of a step stays."""
    node = f"system/node{node_rank}_" if node_rank else "system/"
    values = {f"{node}cpu_percent": sample.cpu_percent, f"{node}memory_bytes": float(sample.memory_bytes)}
    for each in sample.devices:
        place = f"{node}gpu{each.index}"
        values |= {
            f"{place}_utilization_percent": each.utilization_percent,
            f"{place}_memory_used_bytes": float(each.memory_used_bytes),
            f"{place}_power_watts": each.power_watts,
            f"{place}_temperature_celsius": each.temperature_celsius,
        }
        if each.energy_joules is not None:
            values[f"{place}_energy_joules"] = each.energy_joules
    return values
