"""Accelerators of AMD, through AMD SMI's own Python module (`amdsmi`, part of ROCm)."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Final

from services.trainer.sensors.readings import DeviceInfo, DeviceReading, ThrottleReason, is_visible

_THERMAL: Final = ("active_prochot_thrm", "active_socket_thrm", "active_vr_thrm", "active_hbm_thrm")
_POWER: Final = ("active_ppt_pwr",)


class AmdSensors:
    """AMD SMI while it is initialised; `close` it."""

    def __init__(self, smi: Any) -> None:
        self._smi = smi
        self._handles = tuple(smi.amdsmi_get_processor_handles())

    def find(self) -> tuple[DeviceInfo, ...]:
        """Returns the accelerators that this process may use (`HIP_VISIBLE_DEVICES`, `CUDA_VISIBLE_DEVICES`)."""
        smi = self._smi
        setting = os.environ.get("HIP_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES"))
        return tuple(
            DeviceInfo(
                index=index,
                model=str(smi.amdsmi_get_gpu_asic_info(handle)["market_name"]),
                memory_bytes=int(smi.amdsmi_get_gpu_memory_total(handle, smi.AmdSmiMemoryType.VRAM)),
            )
            for index, handle in enumerate(self._handles)
            if is_visible(index, "", setting)
        )

    def read(self, index: int) -> DeviceReading:
        """Reads one accelerator; each figure on its own, for AMD SMI answers `N/A` or raises for what is not there."""
        if index >= len(self._handles):
            return DeviceReading(index=index)
        smi, handle = self._smi, self._handles[index]
        values: dict[str, Any] = {}
        with contextlib.suppress(smi.AmdSmiException):
            values["utilization_percent"] = _first(smi.amdsmi_get_gpu_activity(handle), "gfx_activity")
        with contextlib.suppress(smi.AmdSmiException):
            vram = smi.AmdSmiMemoryType.VRAM
            values["memory_total_bytes"] = int(smi.amdsmi_get_gpu_memory_total(handle, vram))
            values["memory_used_bytes"] = int(smi.amdsmi_get_gpu_memory_usage(handle, vram))
        with contextlib.suppress(smi.AmdSmiException):
            power = smi.amdsmi_get_power_info(handle)
            values["power_watts"] = _first(power, "current_socket_power", "average_socket_power", "socket_power")
        values["temperature_celsius"] = self._temperature(handle)
        with contextlib.suppress(smi.AmdSmiException):
            values["compute_clock_mhz"] = _first(smi.amdsmi_get_clock_info(handle, smi.AmdSmiClkType.GFX), "clk")
        with contextlib.suppress(smi.AmdSmiException):
            values["memory_clock_mhz"] = _first(smi.amdsmi_get_clock_info(handle, smi.AmdSmiClkType.MEM), "clk")
        with contextlib.suppress(smi.AmdSmiException):
            values["throttle_reasons"] = _reasons(smi.amdsmi_get_violation_status(handle))
        with contextlib.suppress(smi.AmdSmiException):
            counted = smi.amdsmi_get_energy_count(handle)  # in units of so many microjoules
            values["energy_joules"] = counted["energy_accumulator"] * counted["counter_resolution"] / 1e6
        return DeviceReading(index=index, **{name: value for name, value in values.items() if value is not None})

    def _temperature(self, handle: Any) -> float | None:
        smi = self._smi
        # Data centre devices have no sensor at the edge, the others may have none at the hot spot.
        for sensor in (smi.AmdSmiTemperatureType.HOTSPOT, smi.AmdSmiTemperatureType.EDGE):
            with contextlib.suppress(smi.AmdSmiException):
                return float(smi.amdsmi_get_temp_metric(handle, sensor, smi.AmdSmiTemperatureMetric.CURRENT))
        return None

    def cuda_name(self, index: int) -> str:
        """Returns how `CUDA_VISIBLE_DEVICES`, which HIP reads too, names an accelerator."""
        return str(index)

    def close(self) -> None:
        """Lets AMD SMI go."""
        self._smi.amdsmi_shut_down()


def open_amd() -> AmdSensors | None:
    """Initialises AMD SMI; `None` without ROCm, which is no fault."""
    try:
        import amdsmi
    except (ImportError, OSError, KeyError, AttributeError):  # the module looks for its library while it is imported
        return None
    try:
        amdsmi.amdsmi_init()
    except amdsmi.AmdSmiException:
        return None
    try:
        return AmdSensors(amdsmi)
    except amdsmi.AmdSmiException:
        amdsmi.amdsmi_shut_down()
        return None


def _first(found: dict[str, Any], *names: str) -> float | None:
    """Returns the first of these values that is a number; what is not there is `N/A`."""
    for name in names:
        value = found.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return None


def _reasons(status: dict[str, Any]) -> tuple[ThrottleReason, ...]:
    found = [(ThrottleReason.POWER, _POWER), (ThrottleReason.THERMAL, _THERMAL)]
    return tuple(reason for reason, names in found if any(status.get(name) is True for name in names))
