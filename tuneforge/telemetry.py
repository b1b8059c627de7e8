"""Samples of devices and of the worker process, as events carry them; see `tuneforge.events`."""

from dataclasses import dataclass

from tuneforge import _wire
from tuneforge.v1 import events_pb2 as pb
from tuneforge.values import Word


class ThrottleReason(Word):
    """Why an accelerator runs slower than it could."""

    UNKNOWN = "UNKNOWN"
    POWER = "POWER"
    THERMAL = "THERMAL"
    POWER_BRAKE = "POWER_BRAKE"
    CLOCK_SETTING = "CLOCK_SETTING"
    SYNC = "SYNC"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSample:
    """One accelerator at one moment."""

    index: int
    """On its node, from 0."""
    utilization_percent: float
    memory_used_bytes: int
    memory_total_bytes: int
    power_watts: float
    temperature_celsius: float
    compute_clock_mhz: float | None = None
    """None, here and below: the device does not tell."""
    memory_clock_mhz: float | None = None
    throttle_reasons: tuple[ThrottleReason, ...] = ()
    """Why its clocks are lower than they could be."""
    energy_joules: float | None = None
    """What it has taken since the attempt's worker began."""
    is_slice: bool = False
    """A slice of a device (MIG): power, temperature, clocks and energy are those of the whole device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMetrics:
    """The devices and the worker process were sampled."""

    devices: tuple[DeviceSample, ...]
    """Empty on a CPU."""
    cpu_percent: float
    """Of one core: 200 = two cores busy."""
    memory_bytes: int
    memory_peak_bytes: int
    host_energy_joules: float | None = None
    """What the host's processors have taken since the worker began; None: the host does not tell."""
    energy_joules: float | None = None
    """The worker's part of it, by its share of processor time."""


def device_metrics_from_proto(message: pb.DeviceMetrics) -> DeviceMetrics:
    """Converts a sample of the devices."""
    return DeviceMetrics(
        devices=tuple(map(_device_sample, message.devices)),
        cpu_percent=message.cpu_percent,
        memory_bytes=message.memory_bytes,
        memory_peak_bytes=message.memory_peak_bytes,
        host_energy_joules=_optional(message, "host_energy_joules"),
        energy_joules=_optional(message, "energy_joules"),
    )


def _device_sample(message: pb.DeviceSample) -> DeviceSample:
    reasons = message.throttle_reasons
    return DeviceSample(
        index=message.index,
        utilization_percent=message.utilization_percent,
        memory_used_bytes=message.memory_used_bytes,
        memory_total_bytes=message.memory_total_bytes,
        power_watts=message.power_watts,
        temperature_celsius=message.temperature_celsius,
        compute_clock_mhz=_optional(message, "compute_clock_mhz"),
        memory_clock_mhz=_optional(message, "memory_clock_mhz"),
        throttle_reasons=tuple(_wire.word(ThrottleReason, pb.ThrottleReason.DESCRIPTOR, each) for each in reasons),
        energy_joules=_optional(message, "energy_joules"),
        is_slice=message.is_slice,
    )


def _optional(message: pb.DeviceMetrics | pb.DeviceSample, field: str) -> float | None:
    return float(getattr(message, field)) if message.HasField(field) else None  # type: ignore[arg-type]
