"""What a node has, and how busy it is: accelerators through their drivers, the process through /proc.

Imports neither torch nor CUDA, so the agent may use it; the drivers' libraries are asked for in the process that wants
to know and never in the fork server. A machine without them has no accelerators, and that is no fault.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from services.trainer import cgroups
from services.trainer.sensors.amd import open_amd
from services.trainer.sensors.nvml import open_nvml
from services.trainer.sensors.rapl import PackageEnergy
from services.trainer.sensors.readings import DeviceInfo, DeviceReading, DeviceSensors

__all__ = [
    "DeviceInfo",
    "DeviceReading",
    "ProcessReading",
    "Sampler",
    "cores",
    "cuda_name",
    "find_devices",
    "memory_bytes",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessReading:
    """One process at one moment."""

    cpu_percent: float
    """CPU use since the reading before, in percent of one core."""
    memory_bytes: int
    """Resident memory."""
    memory_peak_bytes: int
    """Largest resident memory so far."""
    host_energy_joules: float | None = None
    """What the host's processors have taken since the sampler was made; `None` where they do not tell."""
    energy_joules: float | None = None
    """This process's part of it, by its share of the processor time that was used meanwhile."""


def find_devices() -> tuple[DeviceInfo, ...]:
    """Returns the accelerators that this process may use; empty without a driver."""
    sensors = _open_sensors()
    if sensors is None:
        return ()
    try:
        return sensors.find()
    finally:
        sensors.close()


def cuda_name(index: int) -> str:
    """Returns how `CUDA_VISIBLE_DEVICES` names an accelerator of this node."""
    sensors = _open_sensors()
    if sensors is None:
        return str(index)
    try:
        return sensors.cuda_name(index)
    finally:
        sensors.close()


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Returns the memory that this process may use: that of the host, or what its control group allows."""
    total, limit = int(psutil.virtual_memory().total), cgroups.memory_limit_bytes()
    return total if limit is None else min(total, limit)


class Sampler:
    """Reads this process and the accelerators of its attempt; `close` it."""

    def __init__(self, indices: Sequence[int] = (), energy: PackageEnergy | None = None) -> None:
        """Prepares.

        Args:
            indices: Of the accelerators, as `DeviceInfo.index`.
            energy: Counts the energy of the host's processors; `None`: what this host has.
        """
        self._indices = tuple(indices)
        self._process = psutil.Process()
        self._process.cpu_percent(None)  # the first call only sets the beginning of the period
        self._energy = energy or PackageEnergy()
        self._share = _EnergyShare(self._process)
        self._sensors = _open_sensors() if self._indices else None
        self._first_joules: dict[int, float] = {}
        if self._sensors is not None:
            readings = (self._sensors.read(index) for index in self._indices)
            self._first_joules = {each.index: each.energy_joules for each in readings if each.energy_joules is not None}

    def read_process(self) -> ProcessReading:
        """Reads this process; the CPU use is over the time since the call before."""
        memory = int(self._process.memory_info().rss)
        host = self._energy.joules()
        return ProcessReading(
            cpu_percent=float(self._process.cpu_percent(None)),
            memory_bytes=memory,
            memory_peak_bytes=max(memory, _peak_bytes()),
            host_energy_joules=host,
            energy_joules=None if host is None else self._share.of(host),
        )

    def read_devices(self) -> tuple[DeviceReading, ...]:
        """Reads the accelerators; energy counts from the making of the sampler."""
        if self._sensors is None:
            return ()
        return tuple(self._since_begin(self._sensors.read(index)) for index in self._indices)

    def close(self) -> None:
        """Lets the driver's library go."""
        if self._sensors is not None:
            self._sensors.close()
            self._sensors = None

    def _since_begin(self, reading: DeviceReading) -> DeviceReading:
        if reading.energy_joules is None:
            return reading
        first = self._first_joules.setdefault(reading.index, reading.energy_joules)
        return replace(reading, energy_joules=max(0.0, reading.energy_joules - first))


class _EnergyShare:
    """Divides the host's energy among its processes: each period by the processor time that was used in it."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._own_s, self._all_s = self._times()
        self._host_joules = 0.0
        self._joules = 0.0

    def of(self, host_joules: float) -> float:
        """Returns the process's part of what the host has taken so far."""
        own_s, all_s = self._times()
        busy_s = all_s - self._all_s
        if busy_s > 0:
            share = min(1.0, (own_s - self._own_s) / busy_s)
            self._joules += share * (host_joules - self._host_joules)
            self._own_s, self._all_s, self._host_joules = own_s, all_s, host_joules
        return self._joules

    def _times(self) -> tuple[float, float]:
        own, everyone = self._process.cpu_times(), psutil.cpu_times()
        idle = everyone.idle + getattr(everyone, "iowait", 0.0)
        # What guests used is in `user` too.
        guests = getattr(everyone, "guest", 0.0) + getattr(everyone, "guest_nice", 0.0)
        return own.user + own.system, sum(everyone) - idle - guests


def _open_sensors() -> DeviceSensors | None:
    return open_nvml() or open_amd()


def _peak_bytes() -> int:
    """Returns the largest resident memory of this process; 0 where the system does not say."""
    try:
        with Path("/proc/self/status").open(encoding="ascii") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
