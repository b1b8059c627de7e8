"""What the sensors tell, whoever made the device."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class ThrottleReason(StrEnum):
    """Why an accelerator runs slower than it could; named as in the contract."""

    POWER = "POWER"
    THERMAL = "THERMAL"
    POWER_BRAKE = "POWER_BRAKE"
    CLOCK_SETTING = "CLOCK_SETTING"
    SYNC = "SYNC"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """One accelerator."""

    index: int
    """Index on the node, from 0: as its driver counts, with each slice (MIG) counted in place of its device."""
    model: str
    """What it is, e.g. `NVIDIA H200`."""
    memory_bytes: int
    """Its memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReading:
    """One accelerator at one moment; what it cannot tell is 0 or `None`, and never guessed."""

    index: int
    """As `DeviceInfo.index`."""
    utilization_percent: float = 0.0
    """Share of the last sample period in which a kernel ran, 0 to 100."""
    memory_used_bytes: int = 0
    """Memory in use, by anyone."""
    memory_total_bytes: int = 0
    """Memory of the device."""
    power_watts: float = 0.0
    """Power draw; of a slice that of the whole device, as all that follows."""
    temperature_celsius: float = 0.0
    """Temperature of the core."""
    compute_clock_mhz: float | None = None
    """Clock of the compute units."""
    memory_clock_mhz: float | None = None
    """Clock of the memory."""
    throttle_reasons: tuple[ThrottleReason, ...] = ()
    """Why the clocks are lower than they could be."""
    energy_joules: float | None = None
    """What the device has taken, by its own counter; where that begins depends on who gives the reading."""
    is_slice: bool = False
    """Whether it is a slice of a device (MIG)."""


class DeviceSensors(Protocol):
    """One kind of accelerators."""

    def find(self) -> tuple[DeviceInfo, ...]:
        """Returns those that this process may use."""
        ...

    def read(self, index: int) -> DeviceReading:
        """Reads one of them."""
        ...

    def cuda_name(self, index: int) -> str:
        """Returns how `CUDA_VISIBLE_DEVICES` names one of them."""
        ...

    def close(self) -> None:
        """Lets the driver's library go."""
        ...


def is_visible(index: int, uuid: str, setting: str | None) -> bool:
    """Tells whether `CUDA_VISIBLE_DEVICES` shows a device; its entries are indices or (beginnings of) UUIDs."""
    if setting is None:
        return True
    for entry in (part.strip() for part in setting.split(",")):
        if entry.startswith("-"):
            return False  # CUDA stops at the first entry that names nothing
        if entry == str(index) or (entry.startswith(("GPU-", "MIG-")) and uuid.startswith(entry)):
            return True
    return False
