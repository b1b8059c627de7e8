"""What a node has and how busy it is, with and without accelerators."""

# ruff: noqa: ARG002 - the fake has the arguments of NVML

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from services.trainer import devices
from services.trainer.devices import DeviceInfo, DeviceReading, Sampler, find_devices
from services.trainer.node import Capacity
from tuneforge.specs.spec import Resources


class _NVMLError(Exception):
    pass


class _FakeNvml(types.ModuleType):
    """NVML of a machine with two devices, the second of which cannot tell its power."""

    NVMLError = _NVMLError
    NVML_TEMPERATURE_GPU = 0
    open_handles = 0

    def nvmlInit(self) -> None:
        self.open_handles += 1

    def nvmlShutdown(self) -> None:
        self.open_handles -= 1

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> bytes:
        return f"GPU-{handle}aaa".encode()

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "NVIDIA H200"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return types.SimpleNamespace(total=100 << 30, used=40 << 30)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        return types.SimpleNamespace(gpu=75)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        if handle == 1:
            raise _NVMLError
        return 350_500

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        return 61


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> _FakeNvml:
    """Two accelerators."""
    fake = _FakeNvml("pynvml")
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


def test_machine_without_a_driver_has_no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """No NVML is no fault: attempts run on the CPU."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_devices() == ()
    assert Sampler([0]).read_devices() == ()


def test_devices_are_found(nvml: _FakeNvml) -> None:
    """Every accelerator is found with its memory, and NVML is let go."""
    assert find_devices() == tuple(
        DeviceInfo(index=index, model="NVIDIA H200", memory_bytes=100 << 30) for index in (0, 1)
    )
    assert nvml.open_handles == 0


@pytest.mark.parametrize(
    ("setting", "indices"), [("", []), ("1", [1]), ("GPU-0aa", [0]), ("0,1", [0, 1]), ("-1", []), ("1,-1,0", [1])]
)
def test_hidden_devices_are_not_counted(
    nvml: _FakeNvml, monkeypatch: pytest.MonkeyPatch, setting: str, indices: list[int]
) -> None:
    """What `CUDA_VISIBLE_DEVICES` hides is not this node's."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    assert [device.index for device in find_devices()] == indices


def test_devices_are_read(nvml: _FakeNvml) -> None:
    """A figure that a device cannot tell is 0 and the others are there."""
    sampler = Sampler([0, 1])
    first, second = sampler.read_devices()
    assert first == DeviceReading(
        index=0,
        utilization_percent=75.0,
        memory_used_bytes=40 << 30,
        memory_total_bytes=100 << 30,
        power_watts=350.5,
        temperature_celsius=61.0,
    )
    assert (second.index, second.power_watts, second.temperature_celsius) == (1, 0.0, 61.0)
    sampler.close()
    assert nvml.open_handles == 0


def test_process_is_read() -> None:
    """CPU use and memory of the process are plausible, and the peak is not below the present."""
    sampler = Sampler()
    reading = sampler.read_process()
    assert reading.cpu_percent >= 0.0
    assert 1 << 20 < reading.memory_bytes <= reading.memory_peak_bytes < devices.memory_bytes()


@pytest.mark.parametrize(
    ("slots", "num_devices", "cores", "resources", "expected"),
    [
        (1, 0, 8, Resources(), (None, 8)),
        (2, 0, 8, Resources(), (None, 4)),
        (4, 0, 2, Resources(), (None, 1)),
        (2, 2, 8, Resources(), (1, 4)),
        (2, 2, 8, Resources(devices_per_node=0), (None, 4)),
        (2, 2, 8, Resources(cpu_millis=3000), (1, 3)),
        (1, 0, 2, Resources(cpu_millis=64_000), (None, 2)),
        (1, 0, 2, Resources(cpu_millis=500), (None, 1)),
    ],
)
def test_slots_divide_the_node(
    slots: int, num_devices: int, cores: int, resources: Resources, expected: tuple[int | None, int]
) -> None:
    """The last slot gets its accelerator and its share of the cores, or what it asked for."""
    found = tuple(DeviceInfo(index=index, model="x", memory_bytes=1) for index in range(num_devices))
    capacity = Capacity(devices=found, cpu_millis=cores * 1000, memory_bytes=1, slots=slots)
    assert (capacity.device_of(slots - 1, resources), capacity.threads_for(resources)) == expected
