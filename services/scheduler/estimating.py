"""What a spec would take: memory by arithmetic corrected by measured runs, time by counted operations over a rate.

`admission` asks it for every job, so that what is answered to `EstimateResources` is what a job is admitted by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from services.scheduler import arithmetic, calibration
from services.scheduler.calibration import CPU, Kind, Measured
from services.scheduler.fitting import Memories, needs_of
from services.scheduler.placement import devices_on, gigabytes, shortage
from services.scheduler.predictions import Prediction
from services.scheduler.queues.budgets import Price
from services.scheduler.records import Capacity, Needs, Node
from services.scheduler.store import measured_runs
from services.scheduler.store import nodes as node_store
from tuneforge.specs.architecture import Architecture
from tuneforge.specs.memory import MemoryEstimate
from tuneforge.specs.scheduling import Scheduling
from tuneforge.specs.spec import FullMethod, TrainingSpec
from tuneforge.specs.workload import row_tokens_of, steps_of

HOUR_S = 3600.0
CHECKPOINT_BYTES_S = 5e8
"""Bytes of a checkpoint that are taken to be written in a second: a usual solid-state disk that writes them through."""
CHECKPOINT_SHARE_MAX = 0.25
"""Share of the time of a run that may go into its checkpoints before a warning says so."""
_UNKNOWN_DEVICE = "accelerator"
"""Kind of a device that no node has named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the scheduler knows of nodes and of runs before."""

    nodes: Sequence[Node]
    """All known nodes, reachable or not."""
    runs: Mapping[Kind, Sequence[Measured]]
    """By each kind that could take the run, accelerators before the CPU: measured runs of the same method and number
    format on such a device, of every family."""
    row_tokens: float | None
    """Tokens of a row of the same data, where it was trained on before."""

    @property
    def cores(self) -> float:
        """Processor cores of the largest node."""
        return max((node.capacity.cpu_millis for node in self.nodes), default=1000) / 1000


def are_alike(one: Known, other: Known) -> bool:
    """Returns whether the same follows from both for a spec. Nothing does of leases, which are renewed all the time."""
    return (one.runs, one.row_tokens, _places(one.nodes)) == (other.runs, other.row_tokens, _places(other.nodes))


def _places(nodes: Sequence[Node]) -> list[tuple[object, ...]]:
    return [(node.node, node.capacity, node.labels) for node in nodes]


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
    kinds = [
        Kind(family=family, method=method, compute=str(spec.compute), device=device) for device in _devices(spec, nodes)
    ]
    return Known(
        nodes=nodes,
        runs={kind: measured_runs.of_device(connection, kind) for kind in kinds},
        row_tokens=measured_runs.row_tokens(connection, train_digest),
    )


def _devices(spec: TrainingSpec, nodes: Sequence[Node]) -> list[str]:
    """Returns the kinds of device that a spec could run on, accelerators in the order of nodes and then the CPU."""
    asked = spec.resources.devices_per_node
    if asked == 0:
        return [CPU]
    found = dict.fromkeys(device_on(Needs(devices=asked), node.capacity) for node in nodes)
    accelerators = [device for device in found if device != CPU]
    if asked:
        return accelerators or [_UNKNOWN_DEVICE]
    return [*accelerators, CPU] if CPU in found or not accelerators else accelerators


def device_on(needs: Needs, capacity: Capacity) -> str:
    """Returns the kind of device that an attempt takes on a node."""
    if not devices_on(needs, capacity):
        return CPU
    return next(iter(capacity.device_models), _UNKNOWN_DEVICE)


def kinds_able(spec: TrainingSpec, scheduling: Scheduling, known: Known) -> list[Kind]:
    """Returns the kinds of device on which a spec may run by all but its memory; every kind, where no node is such."""
    needs = replace(needs_of(spec, {}, scheduling), host_bytes=0)
    able = {device_on(needs, node.capacity) for node in known.nodes if shortage(needs, node) is None}
    return [kind for kind in known.runs if kind.device in able] or list(known.runs)


def memory_of(spec: TrainingSpec, architecture: Architecture, known: Known, kind: Kind) -> MemoryEstimate:
    """Returns the peak memory of a spec on a kind of device, corrected by measured runs of its family."""
    runs = [run for run in known.runs[kind] if run.kind == kind]
    return calibration.corrected(arithmetic.memory(spec, architecture, on_cpu=kind.device == CPU), runs)


def memories_of(spec: TrainingSpec, architecture: Architecture, known: Known) -> Memories:
    """Returns the peak memory of a spec on each kind of device that a node may have, one that comes later included."""
    asked = spec.resources.devices_per_node
    found = {kind.device: memory_of(spec, architecture, known, kind) for kind in known.runs}
    if asked is None and CPU not in found:
        found[CPU] = arithmetic.memory(spec, architecture, on_cpu=True)
    if asked is None and len(found) == 1:
        found[_UNKNOWN_DEVICE] = arithmetic.memory(spec, architecture, on_cpu=False)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What is learned from, for the arithmetic."""

    count: int
    characters: float
    """Of a row, mean; 0: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be predicted."""

    spec: TrainingSpec
    """With defaults."""
    architecture: Architecture
    """Of its base."""
    rows: Rows
    """Rows to learn from."""
    price: Price
    """Of a device."""


def predict(asked: Question, known: Known, kind: Kind) -> Prediction:
    """Returns what a spec would take on a kind of device, one of `known.runs`."""
    spec, architecture, rows, price = asked.spec, asked.architecture, asked.rows, asked.price
    runs = known.runs[kind]
    optimization, longest = spec.optimization, spec.data.max_tokens
    row_tokens = known.row_tokens or (row_tokens_of(rows.characters, longest) if rows.characters else longest / 2)
    row_tokens = min(row_tokens, float(longest))
    flops = arithmetic.operations(spec, architecture, row_tokens)
    devices = max(1, spec.resources.devices_per_node or 1) * max(1, spec.resources.nodes)
    fallback = calibration.default_rate(kind.device, kind.compute, known.cores)
    per_flop, rate_runs = calibration.seconds_per_flop(runs, flops, fallback)
    tokens = optimization.rows_per_step * row_tokens
    steps = steps_of(
        max(1, rows.count), optimization.rows_per_step, epochs=optimization.epochs, max_steps=optimization.max_steps
    )
    step_seconds = per_flop.times(flops * tokens / devices)
    total = step_seconds.times(steps)
    device_seconds = total.times(devices)
    watts = calibration.power_watts(runs)
    return Prediction(
        kind=kind,
        memory=memory_of(spec, architecture, known, kind),
        arithmetic_bytes=arithmetic.memory(spec, architecture, on_cpu=kind.device == CPU).total_bytes,
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


def checkpoint_warnings(spec: TrainingSpec, found: Prediction) -> list[str]:
    """Returns what is to be said where checkpoints would be written for too large a part of the time, as sentences."""
    every, memory, step_s = spec.checkpointing.every_steps or 0, found.memory, found.step_seconds.expected
    moved = memory.weights_bytes if isinstance(spec.method, FullMethod) else memory.adapter_bytes
    size = moved + memory.optimizer_bytes
    written_s = size / CHECKPOINT_BYTES_S
    if not 0 < every < found.steps or written_s < 1.0 or written_s <= CHECKPOINT_SHARE_MAX * every * step_s:
        return []
    enough = math.ceil(written_s / (CHECKPOINT_SHARE_MAX * step_s))
    return [
        f"CHECKPOINT_IO_HIGH: a checkpoint has about {gigabytes(size)}, {written_s:.0f} s of writing at "
        f"{gigabytes(round(CHECKPOINT_BYTES_S))} a second, and the steps from one to the next are predicted to take "
        f"{every * step_s:.1f} s: give checkpointing.every_steps {enough} or more."
    ]


def lacks(found: Prediction, needs: Needs, nodes: Sequence[Node]) -> str:
    """Returns what the best node with such a device lacks for a job; empty: one lacks nothing, or none is known."""
    lacking = [
        (lack.missing_bytes, f"nodes/{node.node} {lack.what}") if (lack := shortage(needs, node)) else (0, "")
        for node in nodes
        if device_on(needs, node.capacity) == found.kind.device
    ]
    return min(lacking, default=(0, ""))[1]
