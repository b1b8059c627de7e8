"""Corrects predictions by what finished runs were measured at. Pure.

Memory: a run's real peak over the arithmetic one, by family, method and number format on one kind of device. Time:
operations a second, of the runs whose models are nearest in size.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tuneforge.specs.memory import MemoryEstimate, with_interval

FEWEST_RUNS = 3
"""So many measured runs correct a prediction of memory: one may have had short rows by chance."""
NEAREST = 5
"""Runs whose rate counts, at most."""
ALIKE = 2.0
"""Factor by which their models may be further from the asked size than the nearest one: a small model's rate says
little of a large one's."""
SPREAD = 0.05
"""What the interval goes beyond the runs furthest off."""
RATE_SPREAD = 0.3
"""Share that a step's time may lie beside the calibrated one."""
UNKNOWN_FACTOR = 3.0
"""How far the default rate of a device may be off."""
CPU = "cpu"
_FP32, _OTHER = "fp32", "other"
_CORE_RATE = {_FP32: 45e9, _OTHER: 80e9}
"""Operations a second of one core in training; measured with SmolLM2-135M on a Zen 4 core with AVX-512 and bf16."""
_PEAK_RATES = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40": 181e12, "L4": 121e12, "A10": 125e12, "T4": 65e12}
"""Dense 16-bit operations a second by the makers' data sheets."""
_UNKNOWN_PEAK = 100e12
_USED_SHARE = 0.35
"""Share of a GPU's rate that training reaches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What runs are compared by."""

    family: str
    """Class of the model."""
    method: str
    """`lora`, `qlora` or `full`."""
    compute: str
    """Number format as it was asked for."""
    device: str
    """Kind of device, `cpu` without an accelerator."""

    def __str__(self) -> str:
        return "/".join((self.family, self.method, self.compute, self.device))


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One finished run."""

    kind: Kind
    arithmetic_bytes: int
    """Peak memory by arithmetic."""
    real_bytes: int
    """Real peak memory."""
    flops_per_token: float
    tokens: float
    """Computed on one device: of several that trained together their share."""
    seconds: float
    """Time spent in steps."""
    joules: float = 0.0
    """Energy; 0: not measured."""

    @property
    def memory_ratio(self) -> float:
        """Real peak over the arithmetic one."""
        return self.real_bytes / self.arithmetic_bytes

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.flops_per_token * self.tokens / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure that is not known exactly."""

    expected: float
    lowest: float
    highest: float

    def times(self, factor: float) -> Interval:
        """Returns it in another unit."""
        return Interval(expected=self.expected * factor, lowest=self.lowest * factor, highest=self.highest * factor)


def corrected(found: MemoryEstimate, runs: Sequence[Measured]) -> MemoryEstimate:
    """Returns an estimate of memory corrected by runs of its kind, never below what is held for certain.

    Args:
        found: By arithmetic.
        runs: Measured runs of the same kind, any number.
    """
    if len(runs) < FEWEST_RUNS:
        return found
    ratios = sorted(run.memory_ratio for run in runs)
    ratio = statistics.median(ratios)
    # What is not held for certain takes the correction: there the arithmetic may be off.
    wanted = max(0.0, found.total_bytes * ratio - found.state_bytes)
    uncertain = found.total_bytes - found.state_bytes
    share = wanted / uncertain if uncertain else 1.0
    parts = ("activations_bytes", "overhead_bytes", "mapped_bytes", "loading_bytes")
    scaled = replace(found, **{part: round(getattr(found, part) * share) for part in parts}, runs=len(runs))
    return with_interval(scaled, low=ratios[0] / ratio - SPREAD, high=ratios[-1] / ratio + SPREAD)


def default_rate(device: str, compute: str, cores: float) -> float:
    """Returns the operations a second that are expected of a device without a measured run.

    Args:
        device: Its kind.
        compute: Number format as it was asked for.
        cores: Processor cores that an attempt gets; counts on a CPU only.
    """
    if device == CPU:
        return _CORE_RATE[_FP32 if compute == _FP32 else _OTHER] * max(1.0, cores)
    peak = next((rate for name, rate in _PEAK_RATES.items() if name in device), _UNKNOWN_PEAK)
    return peak * _USED_SHARE


def seconds_per_flop(runs: Sequence[Measured], flops_per_token: float, fallback_rate: float) -> tuple[Interval, int]:
    """Returns the time of one operation, and how many measured runs it comes from.

    Args:
        runs: Measured runs of the same method and number format on such a device, of any family.
        flops_per_token: Of the run that is asked for: those nearest in size count.
        fallback_rate: Operations a second where there is none.
    """
    if not runs:
        slow, fast = 1 / fallback_rate * UNKNOWN_FACTOR, 1 / fallback_rate / UNKNOWN_FACTOR
        return Interval(expected=1 / fallback_rate, lowest=fast, highest=slow), 0

    def distance(run: Measured) -> float:
        return abs(math.log(run.flops_per_token / flops_per_token))

    furthest = min(map(distance, runs)) + math.log(ALIKE)
    nearest = sorted((run for run in runs if distance(run) <= furthest), key=distance)[:NEAREST]
    times = sorted(1 / run.rate for run in nearest)
    expected = statistics.median(times)
    low, high = min(times[0], expected * (1 - RATE_SPREAD)), max(times[-1], expected * (1 + RATE_SPREAD))
    return Interval(expected=expected, lowest=low, highest=high), len(nearest)


def power_watts(runs: Sequence[Measured]) -> float | None:
    """Returns the power that such runs took in the middle; None when none has measured it."""
    found = [run.joules / run.seconds for run in runs if run.joules > 0]
    return statistics.median(found) if found else None


def spread(values: Sequence[float]) -> Interval:
    """Returns the median and the extremes of some figures, at least one."""
    return Interval(expected=statistics.median(values), lowest=min(values), highest=max(values))
