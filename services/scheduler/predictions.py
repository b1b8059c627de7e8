"""What a run would take, as it was predicted."""

from __future__ import annotations

from dataclasses import dataclass

from services.scheduler.calibration import Interval, Kind
from tuneforge.specs.memory import MemoryEstimate


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
