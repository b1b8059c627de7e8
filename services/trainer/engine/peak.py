"""The real peak of a run's memory, from its own beginning on, whatever its process did before."""

import contextlib
import resource
from dataclasses import dataclass
from pathlib import Path

import torch

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"
"""Makes the kernel count the largest resident memory anew; proc(5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """Largest memory of a run so far, in bytes."""

    host: int
    """Resident memory of the process."""
    allocated: int = 0
    """Held in tensors on the accelerator; 0 without one."""
    reserved: int = 0
    """Taken by the allocator from the accelerator; 0 without one."""

    def figures(self) -> dict[str, float]:
        """Returns them as `TrainingResult.metrics` names them."""
        if not self.reserved:
            return {"peak_memory_bytes": float(self.host)}
        return {
            "peak_memory_bytes": float(self.allocated),
            "peak_reserved_memory_bytes": float(self.reserved),
            "peak_host_memory_bytes": float(self.host),
        }


def reset_peaks(device: torch.device) -> None:
    """Begins to count anew; a kernel that cannot goes on from the beginning of the process."""
    with contextlib.suppress(OSError):
        _CLEAR_REFS.write_text(_RESET_PEAK)
    if device.type == "cuda":
        torch.cuda.init()  # nothing has used the device yet, and without it there is no allocator to be asked
        torch.cuda.reset_peak_memory_stats(device)


def read_peaks(device: torch.device) -> Peaks:
    """Returns the peaks since `reset_peaks`."""
    if device.type != "cuda":
        return Peaks(host=_host_peak())
    return Peaks(
        host=_host_peak(),
        allocated=torch.cuda.max_memory_allocated(device),
        reserved=torch.cuda.max_memory_reserved(device),
    )


def _host_peak() -> int:
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
