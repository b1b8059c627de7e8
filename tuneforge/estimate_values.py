"""What runs are predicted to take, and how far such predictions were off, as plain values."""

from dataclasses import dataclass, fields

from tuneforge.specs.memory import MemoryEstimate
from tuneforge.v1 import jobs_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure that is not known exactly."""

    expected: float
    lowest: float
    """It lies above this."""
    highest: float
    """It lies below this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceEstimate:
    """What a run takes: memory by arithmetic, time by counted operations over a rate that was measured."""

    memory: MemoryEstimate | None
    """None while the shapes of the base are not known."""
    device: str
    """Kind of device that all of it is for, `cpu` without an accelerator."""
    steps: int
    tokens_per_step: int
    flops_per_token: float
    step_seconds: Interval | None
    total_seconds: Interval | None
    """Waiting in a queue left out."""
    device_seconds: Interval | None
    energy_joules: Interval | None
    """None: no run on such a device has measured it."""
    cost: Interval | None
    """None: no price is set for a device's hour."""
    currency: str
    rate_runs: int
    """Measured runs that the rate comes from; 0: the default for such a device."""
    problem: str
    """Why no known node could ever hold it; empty: one could. In an alternative: what the best such node lacks."""
    family: str
    """Class of the model."""
    arithmetic_bytes: int
    """Peak memory by arithmetic alone."""
    alternatives: tuple["ResourceEstimate", ...] = ()
    """The same for every other kind of device of the known nodes that could take the job, memory left aside."""
    advice: tuple[str, ...] = ()
    """What may better be changed, as sentences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Predictions beside what was measured, for runs of one family, method and number format on one kind of device."""

    family: str
    method: str
    compute: str
    device: str
    runs: int
    memory_ratio: Interval
    """Real peak memory over the one by arithmetic: the median run, and the runs furthest off."""
    flops_per_second: Interval


def resource_estimate_from_proto(message: pb.ResourceEstimate) -> ResourceEstimate:
    """Converts a prediction."""
    return ResourceEstimate(
        memory=memory_from_proto(message.memory) if message.HasField("memory") else None,
        device=message.device,
        steps=message.steps,
        tokens_per_step=message.tokens_per_step,
        flops_per_token=message.flops_per_token,
        step_seconds=_range(message, "step_seconds"),
        total_seconds=_range(message, "total_seconds"),
        device_seconds=_range(message, "device_seconds"),
        energy_joules=_range(message, "energy_joules"),
        cost=_range(message, "cost"),
        currency=message.currency,
        rate_runs=message.rate_runs,
        problem=message.problem,
        family=message.family,
        arithmetic_bytes=message.arithmetic_bytes,
        alternatives=tuple(map(resource_estimate_from_proto, message.alternatives)),
        advice=tuple(message.advice),
    )


def calibration_from_proto(message: pb.Calibration) -> Calibration:
    """Converts predictions beside what was measured."""
    return Calibration(
        family=message.family,
        method=message.method,
        compute=message.compute,
        device=message.device,
        runs=message.runs,
        memory_ratio=_figures(message.memory_ratio),
        flops_per_second=_figures(message.flops_per_second),
    )


def _range(message: pb.ResourceEstimate, field: str) -> Interval | None:
    return _figures(getattr(message, field)) if message.HasField(field) else None  # type: ignore[arg-type]


def _figures(message: pb.Interval) -> Interval:
    return Interval(expected=message.expected, lowest=message.lowest, highest=message.highest)


def memory_from_proto(message: pb.MemoryEstimate) -> MemoryEstimate:
    """Converts a prediction of memory."""
    parts = (field.name for field in fields(MemoryEstimate))
    return MemoryEstimate(**{name: getattr(message, name) for name in parts})
