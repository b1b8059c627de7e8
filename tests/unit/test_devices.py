"""What a node has and how busy it is, with and without accelerators."""

# ruff: noqa: ARG002 - the fake has the arguments of NVML

from __future__ import annotations

import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

from services.grpckit.settings import ServerSettings
from services.trainer import devices
from services.trainer.__main__ import Node
from services.trainer.devices import DeviceInfo, DeviceReading, Sampler, find_devices
from services.trainer.events import EventLog, parse
from services.trainer.launching import JOB, PRELOAD, PRELOAD_BESIDE_ACCELERATORS
from services.trainer.node import Capacity
from services.trainer.sampling import Sampling, device_metrics
from services.trainer.sensors.rapl import PackageEnergy
from services.trainer.settings import TrainerSettings
from services.trainer.spool import SpoolReader
from tuneforge.names import AttemptName
from tuneforge.specs.spec import Resources


class _NVMLError(Exception):
    pass


class _FakeNvml(types.ModuleType):
    """NVML of a machine with two devices: the second cannot tell its power and energy, and may be divided."""

    NVMLError = _NVMLError
    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2
    open_handles = 0
    has_slices = False
    reasons = 0
    millijoules = 5_000_000
    millijoules_a_look = 0

    def nvmlInit(self) -> None:
        self.open_handles += 1

    def nvmlShutdown(self) -> None:
        self.open_handles -= 1

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:
        if handle == 0:
            raise _NVMLError
        return [int(self.has_slices), 0]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: int) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: int, number: int) -> int:
        if number not in {0, 3}:
            raise _NVMLError
        return 10 + number

    def nvmlDeviceGetUUID(self, handle: int) -> bytes:
        return f"{'MIG' if handle >= 10 else 'GPU'}-{handle}aaa".encode()

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "NVIDIA H200 MIG 1g.18gb" if handle >= 10 else "NVIDIA H200"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return types.SimpleNamespace(total=(18 if handle >= 10 else 100) << 30, used=(4 if handle >= 10 else 40) << 30)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        if handle >= 10:
            raise _NVMLError
        return types.SimpleNamespace(gpu=75)

    def nvmlDeviceGetClockInfo(self, handle: int, clock: int) -> int:
        assert handle < 10, "clocks are of whole devices"
        return {1: 1980, 2: 3201}[clock]

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: int) -> int:
        return self.reasons

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        if handle == 1:
            raise _NVMLError
        self.millijoules += self.millijoules_a_look
        return self.millijoules

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
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    assert find_devices() == ()
    assert Sampler([0]).read_devices() == ()


def test_devices_are_found(nvml: _FakeNvml) -> None:
    """Every accelerator is found with its memory, and NVML is let go."""
    assert find_devices() == tuple(
        DeviceInfo(index=index, model="NVIDIA H200", memory_bytes=100 << 30) for index in (0, 1)
    )
    assert nvml.open_handles == 0


@pytest.mark.parametrize(
    ("setting", "indices"),
    [("", []), ("1", [1]), ("GPU-0aa", [0]), ("0,1", [0, 1]), ("-1", []), ("1,-1,0", [1]), ("MIG-1", [])],
)
def test_hidden_devices_are_not_counted(
    nvml: _FakeNvml, monkeypatch: pytest.MonkeyPatch, setting: str, indices: list[int]
) -> None:
    """What `CUDA_VISIBLE_DEVICES` hides is not this node's."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    assert [device.index for device in find_devices()] == indices


def test_devices_are_read(nvml: _FakeNvml) -> None:
    """What a device cannot tell is 0 or missing and the others are there; energy counts from the sampler's begin."""
    sampler = Sampler([0, 1])
    nvml.millijoules += 12_500
    first, second = sampler.read_devices()
    assert first == DeviceReading(
        index=0,
        utilization_percent=75.0,
        memory_used_bytes=40 << 30,
        memory_total_bytes=100 << 30,
        power_watts=350.5,
        temperature_celsius=61.0,
        compute_clock_mhz=1980.0,
        memory_clock_mhz=3201.0,
        energy_joules=12.5,
    )
    assert (second.index, second.power_watts, second.temperature_celsius) == (1, 0.0, 61.0)
    assert second.energy_joules is None
    sampler.close()
    assert nvml.open_handles == 0


@pytest.mark.parametrize(
    ("bits", "reasons"),
    [
        (0x0, []),
        (0x1, []),
        (0x4, ["POWER"]),
        (0x8, ["POWER_BRAKE"]),
        (0x48, ["THERMAL"]),
        (0x60, ["THERMAL"]),
        (0x84, ["POWER", "POWER_BRAKE"]),
        (0x112, ["CLOCK_SETTING", "SYNC"]),
    ],
)
def test_reasons_of_slow_clocks(nvml: _FakeNvml, bits: int, reasons: list[str]) -> None:
    """The driver's bits become words; to be idle is no reason, and a cause stands for its effect."""
    nvml.reasons = bits
    assert list(Sampler([0]).read_devices()[0].throttle_reasons) == reasons


def test_slices_stand_in_the_place_of_their_device(nvml: _FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    """With MIG each slice is a device with its own memory; CUDA knows it by its UUID, power is that of the whole."""
    nvml.has_slices = True
    assert [(each.index, each.memory_bytes >> 30) for each in find_devices()] == [(0, 100), (1, 18), (2, 18)]
    assert [devices.cuda_name(index) for index in range(3)] == ["0", "MIG-10aaa", "MIG-13aaa"]
    nvml_reading = Sampler([2]).read_devices()[0]
    assert nvml_reading.is_slice
    assert nvml_reading.memory_used_bytes == 4 << 30
    assert (nvml_reading.utilization_percent, nvml_reading.temperature_celsius) == (0.0, 61.0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-13aaa")
    assert [each.index for each in find_devices()] == [2]


def test_unset_sensors_stay_unset_on_the_wire(nvml: _FakeNvml) -> None:
    """Nobody reads a 0 where nothing was measured."""
    sampler = Sampler([0, 1], PackageEnergy(Path("/nowhere")))
    message = device_metrics(sampler.read_process(), sampler.read_devices())
    first, second = message.devices
    assert (first.HasField("energy_joules"), second.HasField("energy_joules")) == (True, False)
    assert not message.HasField("host_energy_joules")
    assert not message.HasField("energy_joules")


def test_energy_of_an_attempt(nvml: _FakeNvml, tmp_path: Path) -> None:
    """It is that of the last sample, taken when the work is over; a device that does not tell leaves no sum."""
    nvml.millijoules_a_look = 1_000
    log = EventLog(tmp_path / "spool", AttemptName.parse("projects/p/jobs/j/attempts/1"), 0)
    with (first := Sampling(log, [0])):
        pass
    samples = [parse(record.payload).device for record in SpoolReader(tmp_path / "spool").read()]
    assert first.energy()["gpu_energy_joules"] == len(samples) == samples[-1].devices[0].energy_joules
    with (second := Sampling(log, [0, 1])):
        pass
    assert "gpu_energy_joules" not in second.energy()
    log.close()


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """Counters of two packages, and of a part of one."""
    for name, energy in {"intel-rapl:0": 900, "intel-rapl:1": 50, "intel-rapl:0:0": 10}.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "energy_uj").write_text(f"{energy * 1_000_000}\n")
        (folder / "max_energy_range_uj").write_text("1000000000\n")
    return tmp_path


def test_energy_of_the_processors(powercap: Path) -> None:
    """Packages are added up from the begin on, their parts are not, and a counter that begins anew goes on."""
    energy = PackageEnergy(powercap)
    assert energy.joules() == 0.0
    (powercap / "intel-rapl:1/energy_uj").write_text("60000000\n")
    (powercap / "intel-rapl:0:0/energy_uj").write_text("500000000\n")
    assert energy.joules() == 10.0
    (powercap / "intel-rapl:0/energy_uj").write_text("5000000\n")  # 900 J -> 1000 J -> 5 J
    assert energy.joules() == pytest.approx(10.0 + 105.0)


def test_a_process_takes_a_part_of_the_energy(powercap: Path) -> None:
    """The worker's part is between nothing and all, and more than nothing after it has worked."""
    sampler = Sampler(energy=PackageEnergy(powercap))
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    (powercap / "intel-rapl:1/energy_uj").write_text("150000000\n")
    reading = sampler.read_process()
    assert reading.host_energy_joules == 100.0
    assert reading.energy_joules is not None
    assert 0.0 < reading.energy_joules <= 100.0


def test_a_host_that_does_not_tell_its_energy(tmp_path: Path) -> None:
    """No figure is made up."""
    reading = Sampler(energy=PackageEnergy(tmp_path)).read_process()
    assert (reading.host_energy_joules, reading.energy_joules) == (None, None)


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


def test_beside_accelerators_the_fork_server_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker imports begins CUDA, which survives no fork; without a device all is imported before it."""
    server = ServerSettings(service="trainer", listen="127.0.0.1:0", data=tmp_path)
    settings = TrainerSettings(server=server, node_id="n")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert Node(settings)._launcher._places == [PRELOAD, JOB]
    monkeypatch.setitem(sys.modules, "pynvml", _FakeNvml("pynvml"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert Node(settings)._launcher._places == [PRELOAD_BESIDE_ACCELERATORS, JOB]
    program = f"""
import sys
from services.trainer.forkserver import find
find("{PRELOAD_BESIDE_ACCELERATORS}")()
find("{JOB}")
print(sorted({{"torch", "peft", "bitsandbytes"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
