"""Accelerators of AMD, read through a fake with the names, units and answers of ROCm 7's `amdsmi`.

No such device was at hand.
"""

# ruff: noqa: ARG002 - the fake has the arguments of AMD SMI

from __future__ import annotations

import enum
import sys
import types
from typing import Any

import pytest

from services.trainer.devices import DeviceInfo, DeviceReading, Sampler, find_devices


class _AmdSmiException(Exception):
    pass


class _FakeAmdSmi(types.ModuleType):
    """AMD SMI of a machine with two MI300X: a data centre device has no sensor at its edge."""

    AmdSmiException = _AmdSmiException
    AmdSmiMemoryType = enum.IntEnum("AmdSmiMemoryType", "VRAM VIS_VRAM GTT", start=0)
    AmdSmiClkType = enum.IntEnum("AmdSmiClkType", "SYS GFX DF DCEF SOC MEM", start=0)
    AmdSmiTemperatureType = enum.IntEnum("AmdSmiTemperatureType", "EDGE HOTSPOT", start=0)
    AmdSmiTemperatureMetric = enum.IntEnum("AmdSmiTemperatureMetric", "CURRENT MAX", start=0)
    open_handles = 0
    accumulator = 1_000_000
    status: dict[str, Any] = {"active_ppt_pwr": False, "active_socket_thrm": "N/A"}  # noqa: RUF012

    def amdsmi_init(self) -> None:
        self.open_handles += 1

    def amdsmi_shut_down(self) -> None:
        self.open_handles -= 1

    def amdsmi_get_processor_handles(self) -> list[str]:
        return ["a", "b"]

    def amdsmi_get_gpu_asic_info(self, handle: str) -> dict[str, Any]:
        return {"market_name": "AMD Instinct MI300X", "vendor_id": 0x1002}

    def amdsmi_get_gpu_memory_total(self, handle: str, kind: enum.IntEnum) -> int:
        return 192 << 30

    def amdsmi_get_gpu_memory_usage(self, handle: str, kind: enum.IntEnum) -> int:
        return 3 << 30

    def amdsmi_get_gpu_activity(self, handle: str) -> dict[str, Any]:
        return {"gfx_activity": 88, "umc_activity": 12, "mm_activity": "N/A"}

    def amdsmi_get_power_info(self, handle: str) -> dict[str, Any]:
        return {"socket_power": 0, "current_socket_power": 612, "average_socket_power": "N/A", "power_limit": 750}

    def amdsmi_get_temp_metric(self, handle: str, sensor: enum.IntEnum, metric: enum.IntEnum) -> int:
        if sensor.name == "EDGE":
            raise _AmdSmiException
        return 57

    def amdsmi_get_clock_info(self, handle: str, kind: enum.IntEnum) -> dict[str, Any]:
        return {"clk": {"GFX": 2100, "MEM": "N/A"}[kind.name], "max_clk": 2100, "min_clk": 132}

    def amdsmi_get_violation_status(self, handle: str) -> dict[str, Any]:
        return self.status

    def amdsmi_get_energy_count(self, handle: str) -> dict[str, Any]:
        if handle == "b":
            raise _AmdSmiException
        return {"energy_accumulator": self.accumulator, "counter_resolution": 16.0, "timestamp": 1}


@pytest.fixture
def amd(monkeypatch: pytest.MonkeyPatch) -> _FakeAmdSmi:
    """Two accelerators, and no NVML."""
    fake = _FakeAmdSmi("amdsmi")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setitem(sys.modules, "amdsmi", fake)
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    return fake


def test_devices_are_found(amd: _FakeAmdSmi) -> None:
    """Every accelerator is found with its memory, and the library is let go."""
    assert find_devices() == tuple(
        DeviceInfo(index=index, model="AMD Instinct MI300X", memory_bytes=192 << 30) for index in (0, 1)
    )
    assert amd.open_handles == 0


def test_hidden_devices_are_not_counted(amd: _FakeAmdSmi, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `HIP_VISIBLE_DEVICES` hides is not this node's."""
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "1")
    assert [device.index for device in find_devices()] == [1]


def test_devices_are_read(amd: _FakeAmdSmi) -> None:
    """`N/A` and what raises is missing; energy is in joules, from the sampler's begin."""
    sampler = Sampler([0, 1])
    amd.accumulator += 1_000_000
    first, second = sampler.read_devices()
    assert first == DeviceReading(
        index=0,
        utilization_percent=88.0,
        memory_used_bytes=3 << 30,
        memory_total_bytes=192 << 30,
        power_watts=612.0,
        temperature_celsius=57.0,
        compute_clock_mhz=2100.0,
        energy_joules=16.0,
    )
    assert second.energy_joules is None
    sampler.close()
    assert amd.open_handles == 0


def test_reasons_of_slow_clocks(amd: _FakeAmdSmi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Violations that are active now become words; `N/A` is none."""
    assert Sampler([0]).read_devices()[0].throttle_reasons == ()
    monkeypatch.setattr(amd, "status", {"active_ppt_pwr": True, "active_hbm_thrm": True, "active_vr_thrm": "N/A"})
    assert list(Sampler([0]).read_devices()[0].throttle_reasons) == ["POWER", "THERMAL"]
