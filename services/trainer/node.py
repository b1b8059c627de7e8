"""A node as others see it: what it has, and how that is divided into slots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.trainer import devices
from services.trainer.attempts import AttemptView
from services.trainer.devices import DeviceInfo
from services.trainer.software import software
from tuneforge.specs.spec import Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What a node has."""

    devices: tuple[DeviceInfo, ...]
    """Its accelerators; empty: attempts run on the CPU."""
    cpu_millis: int
    """Processor share for attempts in thousandths of a core."""
    memory_bytes: int
    """Memory of the host."""
    slots: int
    """How many attempts it runs at once."""
    software: str = ""
    """What its attempts compute with, in words."""

    def device_of(self, slot: int, resources: Resources) -> int | None:
        """Returns the NVML index of the accelerator of a slot; `None`: the CPU."""
        if not self.devices or resources.devices_per_node == 0:
            return None
        return self.devices[slot % len(self.devices)].index

    def threads_for(self, resources: Resources) -> int:
        """Returns how many threads an attempt computes with: what it asked for, or its slot's share of the cores."""
        cores = max(1, self.cpu_millis // 1000)
        wanted = resources.cpu_millis // 1000 if resources.cpu_millis else cores // self.slots
        return max(1, min(wanted, cores))


def measure_capacity(slots: int, cpu_millis: int = 0) -> Capacity:
    """Looks at this machine.

    Args:
        slots: Attempts at once; 0: one for each accelerator, or one on a CPU.
        cpu_millis: Processor share for attempts in thousandths of a core; 0: all cores.
    """
    found = devices.find_devices()
    return Capacity(
        devices=found,
        cpu_millis=cpu_millis or devices.cores() * 1000,
        memory_bytes=devices.memory_bytes(),
        slots=slots or len(found) or 1,
        software=software(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """A node at one moment."""

    name: str
    """`nodes/{node}`."""
    address: str
    """`host:port` at which others reach it."""
    capacity: Capacity
    """What it has."""
    labels: Mapping[str, str]
    """Labels that a spec can ask for."""
    is_managed: bool
    """Whether a scheduler manages it."""
    is_draining: bool
    """Whether it is shutting down."""
    attempts: tuple[AttemptView, ...]
    """Attempts that it holds."""
    generation: str
    """Random id of this start, 16 hexadecimal digits."""
    version: str
    """Version of Tuneforge that it runs."""
