"""What runs take: predictions, and what finished runs were measured at; dataclass <-> message."""

from __future__ import annotations

from collections.abc import Sequence

from services.scheduler.calibration import Interval, Kind, Measured, spread
from services.scheduler.predictions import Prediction
from services.scheduler.records import Job
from services.scheduler.wire.inputs import estimate_to_proto
from tuneforge.v1 import events_pb2, jobs_pb2, spec_pb2

_ENERGY = ("gpu_energy_joules", "cpu_energy_joules")


def prediction_bytes(found: Prediction, problem: str, others: Sequence[tuple[Prediction, str]]) -> bytes:
    """Returns a prediction as it is stored.

    Args:
        found: The prediction.
        problem: Why no known node could ever hold it; empty: one could.
        others: The same for other kinds of device, each with why no node of that kind could.
    """
    message = _prediction(found, problem)
    message.alternatives.extend(_prediction(*each) for each in others)
    return message.SerializeToString()


def with_advice(stored: bytes | None, advice: Sequence[str]) -> bytes | None:
    """Returns a stored prediction with what its creator may want to change; messages one after the other are one."""
    return stored and stored + jobs_pb2.ResourceEstimate(advice=advice).SerializeToString()


def _prediction(found: Prediction, problem: str) -> jobs_pb2.ResourceEstimate:
    return jobs_pb2.ResourceEstimate(
        memory=estimate_to_proto(found.memory),
        device=found.kind.device,
        steps=found.steps,
        tokens_per_step=round(found.tokens_per_step),
        flops_per_token=found.flops_per_token,
        step_seconds=_range(found.step_seconds),
        total_seconds=_range(found.total_seconds),
        device_seconds=_range(found.device_seconds),
        energy_joules=None if found.joules is None else _range(found.joules),
        cost=None if found.cost is None else _range(found.cost),
        currency=found.currency,
        rate_runs=found.rate_runs,
        problem=problem,
        family=found.kind.family,
        arithmetic_bytes=found.arithmetic_bytes,
    )


def unknown_bytes(waits_for: str) -> bytes:
    """Returns the prediction for a base that another job has yet to publish."""
    problem = f"the shapes of its base are known once {waits_for} has published it"
    return jobs_pb2.ResourceEstimate(problem=problem).SerializeToString()


def measured_run(job: Job, outcome: bytes) -> tuple[float, Measured] | None:
    """Returns the tokens of a row, and what a job was measured at; None when it lacks a figure.

    Args:
        job: Trained to its end.
        outcome: Serialised `AttemptOutcome` of its last attempt.
    """
    said = events_pb2.AttemptOutcome.FromString(outcome)
    predicted = jobs_pb2.ResourceEstimate.FromString(job.resource_estimate or b"")
    resolved = events_pb2.Resolved.FromString(job.resolved or b"")
    spec = spec_pb2.TrainingSpec.FromString(job.spec)
    seconds = said.metrics.get("train_seconds", 0.0)
    # What took the time: rows that begin alike are computed together, so some data costs half of its tokens.
    tokens = said.metrics.get("computed_tokens") or said.metrics.get("tokens", 0.0)
    peak, device = said.metrics.get("peak_memory_bytes", 0.0), resolved.environment.get("device", "")
    rows = said.step * spec.optimization.rows_per_step
    estimates = (predicted, *predicted.alternatives)
    predicted = next((each for each in estimates if each.device == device), predicted)
    if not (seconds > 0 and tokens > 0 and peak > 0 and rows and device and predicted.arithmetic_bytes):
        return None
    kind = Kind(
        family=predicted.family,
        method=spec.WhichOneof("method") or "",
        compute=spec_pb2.ComputeType.Name(spec.precision.compute).removeprefix("COMPUTE_TYPE_").lower(),
        device=device,
    )
    run = Measured(
        kind=kind,
        arithmetic_bytes=predicted.arithmetic_bytes,
        real_bytes=round(peak),
        flops_per_token=predicted.flops_per_token,
        tokens=tokens / max(1, spec.resources.nodes),  # the rate is that of one device
        seconds=seconds,
        # Energy is told for the last attempt only, time for all of them.
        joules=sum(said.metrics.get(name, 0.0) for name in _ENERGY) if job.attempt == 1 else 0.0,
    )
    return tokens / rows, run


def calibration_to_proto(kind: Kind, runs: Sequence[Measured]) -> jobs_pb2.Calibration:
    """Converts the measured runs of a kind, at least one, to what people see of them."""
    return jobs_pb2.Calibration(
        family=kind.family,
        method=kind.method,
        compute=kind.compute,
        device=kind.device,
        runs=len(runs),
        memory_ratio=_range(spread([run.memory_ratio for run in runs])),
        flops_per_second=_range(spread([run.rate for run in runs])),
    )


def _range(found: Interval) -> jobs_pb2.Interval:
    return jobs_pb2.Interval(expected=found.expected, lowest=found.lowest, highest=found.highest)
