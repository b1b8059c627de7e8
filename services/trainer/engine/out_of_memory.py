"""What a run that ran out of memory is told: its peak, the limit, and the cheapest change that would have fitted."""

import resource

import torch

from services.trainer.devices import memory_bytes
from services.trainer.engine.peak import read_peaks
from services.trainer.engine.recompute import architecture_of
from services.trainer.engine.training_task import TrainingFault, TrainingInputs
from tuneforge.errors import Reason
from tuneforge.specs.cheaper import cheapest_fit
from tuneforge.specs.defaults import with_defaults
from tuneforge.specs.memory import estimate


def out_of_memory(task: TrainingInputs, detail: str) -> TrainingFault:
    """Returns the fault of a run whose memory ran out.

    Args:
        task: The run's inputs.
        detail: What the allocator said.
    """
    device = torch.device(task.device)
    peak, limit = read_peaks(device), limit_bytes(device)
    asked = task.spec.resources.memory_bytes if device.type == "cpu" else 0
    if asked:
        limit = min(limit, asked)
    used = peak.reserved or peak.host
    architecture = architecture_of(task.base[0].folder)
    found = cheapest_fit(
        with_defaults(task.spec, architecture),
        lambda spec: estimate(spec, architecture, on_cpu=device.type == "cpu"),
        lambda _, need: need.total_bytes <= limit,
    )
    cure = "Use a smaller base or a larger node."
    metadata = {"detail": detail, "peak_bytes": str(used), "limit_bytes": str(limit)}
    if found is not None:
        change, need = found
        cure = f"Set {change.words}: about {need.total_bytes / 1e9:.2f} GB are then needed."
        metadata["change"] = change.words
    if asked == limit:
        cure = f"{cure} Or raise `resources.memory_bytes`, which is {asked}."
    message = f"Memory ran out at {used / 1e9:.2f} GB of {limit / 1e9:.2f} GB: {detail}."
    return TrainingFault(Reason.OUT_OF_MEMORY, message, cure, metadata=metadata)


def limit_bytes(device: torch.device) -> int:
    """Returns the memory that this process may use on a device, by hardware, control group and its own limits."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    own = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS))
    return min([memory_bytes(), *(limit for limit in own if limit != resource.RLIM_INFINITY)])
