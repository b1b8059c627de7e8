"""What a node has, and how busy it is: accelerators through NVML, the process through /proc.

Imports neither torch nor CUDA, so the agent may use it; NVML is asked for in the process that wants to know and never
in the fork server. A machine without NVML has no accelerators, and that is no fault.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from services.trainer import cgroups


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """One accelerator."""

    index: int
    """Index on the node as NVML counts, from 0."""
    model: str
    """What it is, e.g. `NVIDIA H200`."""
    memory_bytes: int
    """Its memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReading:
    """One accelerator at one moment."""

    index: int
    """Index on the node as NVML counts, from 0."""
    utilization_percent: float = 0.0
    """Share of the last sample period in which a kernel ran, 0 to 100."""
    memory_used_bytes: int = 0
    """Memory in use, by anyone."""
    memory_total_bytes: int = 0
    """Memory of the device."""
    power_watts: float = 0.0
    """Power draw."""
    temperature_celsius: float = 0.0
    """Temperature of the core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessReading:
    """One process at one moment."""

    cpu_percent: float
    """CPU use since the reading before, in percent of one core."""
    memory_bytes: int
    """Resident memory."""
    memory_peak_bytes: int
    """Largest resident memory so far."""


def find_devices() -> tuple[DeviceInfo, ...]:
    """Returns the accelerators that this process may use (NVML, `CUDA_VISIBLE_DEVICES`); empty without a driver."""
    with _nvml() as nvml:
        if nvml is None:
            return ()
        found = []
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            if _is_visible(index, _text(nvml.nvmlDeviceGetUUID(handle)), os.environ.get("CUDA_VISIBLE_DEVICES")):
                memory = nvml.nvmlDeviceGetMemoryInfo(handle)
                model = _text(nvml.nvmlDeviceGetName(handle))
                found.append(DeviceInfo(index=index, model=model, memory_bytes=int(memory.total)))
        return tuple(found)


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Returns the memory that this process may use: that of the host, or what its control group allows."""
    total, limit = int(psutil.virtual_memory().total), cgroups.memory_limit_bytes()
    return total if limit is None else min(total, limit)


class Sampler:
    """Reads this process and the accelerators of its attempt; `close` it."""

    def __init__(self, indices: Sequence[int] = ()) -> None:
        """Prepares for the accelerators with these NVML indices."""
        self._indices = tuple(indices)
        self._process = psutil.Process()
        self._process.cpu_percent(None)  # the first call only sets the beginning of the period
        self._stack = contextlib.ExitStack()
        self._nvml = self._stack.enter_context(_nvml()) if self._indices else None

    def read_process(self) -> ProcessReading:
        """Reads this process; the CPU use is over the time since the call before."""
        memory = int(self._process.memory_info().rss)
        return ProcessReading(
            cpu_percent=float(self._process.cpu_percent(None)),
            memory_bytes=memory,
            memory_peak_bytes=max(memory, _peak_bytes()),
        )

    def read_devices(self) -> tuple[DeviceReading, ...]:
        """Reads the accelerators; what a device cannot tell stays 0."""
        if self._nvml is None:
            return ()
        return tuple(_read_device(self._nvml, index) for index in self._indices)

    def close(self) -> None:
        """Lets NVML go."""
        self._stack.close()


def _read_device(nvml: Any, index: int) -> DeviceReading:
    values: dict[str, Any] = {}
    # Each figure on its own: a virtual or older device refuses some of them.
    with contextlib.suppress(nvml.NVMLError):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        with contextlib.suppress(nvml.NVMLError):
            values["utilization_percent"] = float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        with contextlib.suppress(nvml.NVMLError):
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            values |= {"memory_used_bytes": int(memory.used), "memory_total_bytes": int(memory.total)}
        with contextlib.suppress(nvml.NVMLError):
            values["power_watts"] = nvml.nvmlDeviceGetPowerUsage(handle) / 1000
        with contextlib.suppress(nvml.NVMLError):
            values["temperature_celsius"] = float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
    return DeviceReading(index=index, **values)


@contextlib.contextmanager
def _nvml() -> Iterator[Any]:
    """Gives NVML while it is initialised, `None` where there is none."""
    try:
        import pynvml
    except ImportError:
        yield None
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _is_visible(index: int, uuid: str, setting: str | None) -> bool:
    """Tells whether `CUDA_VISIBLE_DEVICES` shows a device; its entries are indices or (beginnings of) UUIDs."""
    if setting is None:
        return True
    for entry in (part.strip() for part in setting.split(",")):
        if entry.startswith("-"):
            return False  # CUDA stops at the first entry that names nothing
        if entry == str(index) or (entry.startswith("GPU-") and uuid.startswith(entry)):
            return True
    return False


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


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
