"""Accelerators of NVIDIA, through NVML. Where MIG is on, the slices of a device stand in its place."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from services.trainer.sensors.readings import DeviceInfo, DeviceReading, ThrottleReason, is_visible

# Bits of NVML's clocks event reasons (nvml.h). Idleness (bit 0) slows nothing that runs.
_REASONS: Final = (
    (0x004, ThrottleReason.POWER),  # software power cap
    (0x008, ThrottleReason.POWER_BRAKE),  # hardware slowdown, refined by the two below
    (0x020, ThrottleReason.THERMAL),  # software thermal slowdown
    (0x040, ThrottleReason.THERMAL),  # hardware thermal slowdown
    (0x080, ThrottleReason.POWER_BRAKE),  # hardware power brake
    (0x002, ThrottleReason.CLOCK_SETTING),  # clocks set by an application or a user
    (0x100, ThrottleReason.CLOCK_SETTING),  # by the display
    (0x010, ThrottleReason.SYNC),  # sync boost group
)
_HARDWARE_SLOWDOWN: Final = 0x008
_HARDWARE_THERMAL: Final = 0x040


@dataclass(frozen=True, slots=True)
class _Entry:
    """A whole device, or one slice of it."""

    handle: Any
    device: Any
    """The whole device: it has the sensors that a slice lacks."""
    device_index: int
    uuid: str
    device_uuid: str

    @property
    def is_slice(self) -> bool:
        return self.handle is not self.device


class NvmlSensors:
    """NVML while it is initialised; `close` it."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._entries = tuple(_entries(nvml))

    def find(self) -> tuple[DeviceInfo, ...]:
        """Returns the accelerators that this process may use (`CUDA_VISIBLE_DEVICES`)."""
        nvml, setting = self._nvml, os.environ.get("CUDA_VISIBLE_DEVICES")
        found = []
        for index, entry in enumerate(self._entries):
            is_shown = is_visible(entry.device_index, entry.device_uuid, setting) or (
                entry.is_slice and is_visible(-1, entry.uuid, setting)
            )
            if is_shown:
                memory = nvml.nvmlDeviceGetMemoryInfo(entry.handle)
                model = _text(nvml.nvmlDeviceGetName(entry.handle))
                found.append(DeviceInfo(index=index, model=model, memory_bytes=int(memory.total)))
        return tuple(found)

    def read(self, index: int) -> DeviceReading:
        """Reads one accelerator; each figure on its own, for a slice or an older device refuses some of them."""
        if index >= len(self._entries):
            return DeviceReading(index=index)
        nvml, entry = self._nvml, self._entries[index]
        values: dict[str, Any] = {}
        with contextlib.suppress(nvml.NVMLError):
            values["utilization_percent"] = float(nvml.nvmlDeviceGetUtilizationRates(entry.handle).gpu)
        with contextlib.suppress(nvml.NVMLError):
            memory = nvml.nvmlDeviceGetMemoryInfo(entry.handle)
            values |= {"memory_used_bytes": int(memory.used), "memory_total_bytes": int(memory.total)}
        whole = entry.device
        with contextlib.suppress(nvml.NVMLError):
            values["power_watts"] = nvml.nvmlDeviceGetPowerUsage(whole) / 1000
        with contextlib.suppress(nvml.NVMLError):
            values["temperature_celsius"] = float(nvml.nvmlDeviceGetTemperature(whole, nvml.NVML_TEMPERATURE_GPU))
        with contextlib.suppress(nvml.NVMLError):
            values["compute_clock_mhz"] = float(nvml.nvmlDeviceGetClockInfo(whole, nvml.NVML_CLOCK_SM))
        with contextlib.suppress(nvml.NVMLError):
            values["memory_clock_mhz"] = float(nvml.nvmlDeviceGetClockInfo(whole, nvml.NVML_CLOCK_MEM))
        with contextlib.suppress(nvml.NVMLError):
            # The older of the two names, which every release of the library has.
            values["throttle_reasons"] = _reasons(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(whole))
        with contextlib.suppress(nvml.NVMLError):
            values["energy_joules"] = nvml.nvmlDeviceGetTotalEnergyConsumption(whole) / 1000
        return DeviceReading(index=index, is_slice=entry.is_slice, **values)

    def cuda_name(self, index: int) -> str:
        """Returns how `CUDA_VISIBLE_DEVICES` names an accelerator: CUDA knows slices by their UUID only."""
        entry = self._entries[index] if index < len(self._entries) else None
        if entry is None:
            return str(index)
        return entry.uuid if entry.is_slice else str(entry.device_index)

    def close(self) -> None:
        """Lets NVML go."""
        self._nvml.nvmlShutdown()


def open_nvml() -> NvmlSensors | None:
    """Initialises NVML; `None` without a driver, which is no fault."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        return NvmlSensors(pynvml)
    except BaseException:
        pynvml.nvmlShutdown()
        raise


def _entries(nvml: Any) -> Iterator[_Entry]:
    for index in range(nvml.nvmlDeviceGetCount()):
        device = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = _text(nvml.nvmlDeviceGetUUID(device))
        if not _has_mig(nvml, device):
            yield _Entry(handle=device, device=device, device_index=index, uuid=uuid, device_uuid=uuid)
            continue
        for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(device)):
            with contextlib.suppress(nvml.NVMLError):  # a place where no slice was made
                handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(device, number)
                own = _text(nvml.nvmlDeviceGetUUID(handle))
                yield _Entry(handle=handle, device=device, device_index=index, uuid=own, device_uuid=uuid)


def _has_mig(nvml: Any, device: Any) -> bool:
    try:
        current, _pending = nvml.nvmlDeviceGetMigMode(device)
    except nvml.NVMLError:  # a device that cannot be divided
        return False
    return bool(current)


def _reasons(bits: int) -> tuple[ThrottleReason, ...]:
    if bits & _HARDWARE_THERMAL:
        bits &= ~_HARDWARE_SLOWDOWN  # the same slowdown, with its cause
    return tuple(dict.fromkeys(reason for bit, reason in _REASONS if bits & bit))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
