"""What a spec would take: memory by arithmetic corrected by measured runs, time by counted operations over a rate.

`admission` asks it for every job, so that what is answered to `EstimateResources` is what a job is admitted by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from services.scheduler import arithmetic, calibration
from services.scheduler.calibration import CPU, Interval, Kind, Measured
from services.scheduler.queues.budgets import Price
from services.scheduler.records import Node
from services.scheduler.store import measured_runs
from services.scheduler.store import nodes as node_store
from tuneforge.specs.architecture import Architecture
from tuneforge.specs.memory import MemoryEstimate
from tuneforge.specs.spec import TrainingSpec
from tuneforge.specs.workload import row_tokens_of, steps_of

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the scheduler knows of nodes and of runs before."""

    nodes: Sequence[Node]
    """All known nodes, reachable or not."""
    kind: Kind
    """What runs are compared by."""
    runs: Sequence[Measured]
    """Measured runs of the same method and number format on such a device, of every family."""
    row_tokens: float | None
    """Tokens of a row of the same data, where it was trained on before."""

    @property
    def on_cpu(self) -> bool:
        """Whether the run would compute on a host."""
        return self.kind.device == CPU

    @property
    def cores(self) -> float:
        """Processor cores of the largest node."""
        return max((node.capacity.cpu_millis for node in self.nodes), default=1000) / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a spec would take."""

    kind: Kind
    memory: MemoryEstimate
    """Corrected by measured runs where there are some."""
    arithmetic_bytes: int
    """Peak memory by arithmetic alone."""
    steps: int
    tokens_per_step: float
    flops_per_token: float
    step_seconds: Interval
    total_seconds: Interval
    device_seconds: Interval
    joules: Interval | None
    """None: no run on such a device has measured it."""
    cost: Interval | None
    """None: no price is set."""
    currency: str
    rate_runs: int
    """Measured runs that the rate comes from."""


def look_up(connection: Connection, spec: TrainingSpec, family: str, train_digest: str) -> Known:
    """Reads what is known for a spec.

    Args:
        connection: To the database.
        spec: With defaults.
        family: Class of the base; empty: not known yet.
        train_digest: Digest of its data.
    """
    nodes = node_store.list_by_name(connection)
    method = type(spec.method).__name__.removesuffix("Method").lower()
    kind = Kind(family=family, method=method, compute=str(spec.compute), device=_device(spec, nodes))
    return Known(
        nodes=nodes,
        kind=kind,
        runs=measured_runs.of_device(connection, kind),
        row_tokens=measured_runs.row_tokens(connection, train_digest),
    )


def _device(spec: TrainingSpec, nodes: Sequence[Node]) -> str:
    """Returns the kind of device that a spec would run on: that of the first node with one, unless it asks for none."""
    if spec.resources.devices_per_node == 0:
        return CPU
    models = [model for node in nodes for model in node.capacity.device_models]
    if models:
        return models[0]
    return "accelerator" if spec.resources.devices_per_node else CPU


def memory_of(spec: TrainingSpec, architecture: Architecture, known: Known) -> MemoryEstimate:
    """Returns the peak memory of a spec, corrected by measured runs of its family."""
    runs = [run for run in known.runs if run.kind == known.kind]
    return calibration.corrected(arithmetic.memory(spec, architecture, on_cpu=known.on_cpu), runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What is learned from, for the arithmetic."""

    count: int
    characters: float
    """Of a row, mean; 0: not known."""


def predict(spec: TrainingSpec, architecture: Architecture, rows: Rows, known: Known, price: Price) -> Prediction:
    """Returns what a spec would take.

    Args:
        spec: With defaults.
        architecture: Of its base.
        rows: Rows to learn from.
        known: What is known for the spec.
        price: Of a device.
    """
    optimization, longest = spec.optimization, spec.data.max_tokens
    row_tokens = known.row_tokens or (row_tokens_of(rows.characters, longest) if rows.characters else longest / 2)
    row_tokens = min(row_tokens, float(longest))
    flops = arithmetic.operations(spec, architecture, row_tokens)
    devices = max(1, spec.resources.devices_per_node or 1) * max(1, spec.resources.nodes)
    fallback = calibration.default_rate(known.kind.device, known.kind.compute, known.cores)
    per_flop, rate_runs = calibration.seconds_per_flop(known.runs, flops, fallback)
    tokens = optimization.rows_per_step * row_tokens
    steps = steps_of(
        max(1, rows.count), optimization.rows_per_step, epochs=optimization.epochs, max_steps=optimization.max_steps
    )
    step_seconds = per_flop.times(flops * tokens / devices)
    total = step_seconds.times(steps)
    device_seconds = total.times(devices)
    watts = calibration.power_watts(known.runs)
    return Prediction(
        kind=known.kind,
        memory=memory_of(spec, architecture, known),
        arithmetic_bytes=arithmetic.memory(spec, architecture, on_cpu=known.on_cpu).total_bytes,
        steps=steps,
        tokens_per_step=tokens,
        flops_per_token=flops,
        step_seconds=step_seconds,
        total_seconds=total,
        device_seconds=device_seconds,
        joules=None if watts is None else device_seconds.times(watts),
        cost=device_seconds.times(price.per_device_hour / HOUR_S) if price.per_device_hour else None,
        currency=price.currency,
        rate_runs=rate_runs,
    )
