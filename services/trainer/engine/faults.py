"""Faults that libraries raise in their own words, named as the reasons of the contract."""

import contextlib
import errno
import re
from collections.abc import Callable, Iterator

import torch
from safetensors import SafetensorError
from torch.distributed import DistError

from services.modelkit.faults import InvalidModel
from services.trainer.engine.training_task import Fault, TrainingFault
from tuneforge.data.faults import RenderingError
from tuneforge.errors import Reason

_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Torch's words on a CPU and on a GPU."""
_SOURCE_PLACE = re.compile(r"\[[^\]\s]*\.(?:cc|cpp|h|hpp):\d+\]\s*")
_NO_SPACE = "No space left on device"
_GANG_WORDS = ("/gloo/", "Connection closed by peer", "Connection reset by peer")
"""Of a lost process, as gloo tells it; NCCL and the store raise errors of their own kind."""
_DEVICE_WORDS = (
    *("CUDA error", "HIP error", "NVIDIA driver", "No CUDA GPUs are available", "No HIP GPUs are available"),
    *("CUDA driver initialization failed", "CUDA unknown error", "Unexpected error from cudaGetDeviceCount"),
)
_PROGRAM_WORDS = re.compile(
    r"device-side assert|illegal|misaligned|invalid|no kernel image|not.supported", re.IGNORECASE
)
"""Of what a program has done to its device: that would happen again. Looked for in the first line alone, since torch
ends every error of CUDA with a line on device-side assertions."""


@contextlib.contextmanager
def faults_named(out_of_memory: Callable[[str], TrainingFault]) -> Iterator[None]:
    """Turns what libraries raise into `TrainingFault` where a person can act on it; lets everything else through.

    Args:
        out_of_memory: Makes the fault of an allocator that refused, from what it said.

    Raises:
        TrainingFault: OUT_OF_MEMORY, DISK_FULL, INVALID_MODEL, GANG_BROKEN or DEVICE_LOST.
    """
    try:
        yield
    except (InvalidModel, RenderingError) as error:
        raise TrainingFault(Reason.INVALID_MODEL, error.message, error.cure) from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, DistError) or _says(error, *_GANG_WORDS):
            raise gang_broken(str(error)) from error
        detail = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or _says(error, *_NO_MEMORY):
            raise out_of_memory(detail) from error
        if _says(error, *_DEVICE_WORDS) and not _PROGRAM_WORDS.search(detail):
            raise device_lost(detail) from error
        raise
    except (OSError, SafetensorError) as error:
        if not is_disk_full(error):
            raise
        raise disk_full("the run cannot write its files", str(error)) from error


def gang_broken(detail: str) -> TrainingFault:
    """Returns the fault of a process that has lost another one.

    Args:
        detail: What the library said; places in its source code and its advice are left out.
    """
    said = _SOURCE_PLACE.sub("", detail).partition(". This is typically")[0].strip().partition("\n")[0].rstrip(".")
    return TrainingFault(
        Reason.GANG_BROKEN,
        f"Another process of the run has ended or does not answer ({said}).",
        "Look at the other parts of the attempt for the cause.",
        Fault.INFRASTRUCTURE,
        metadata={"detail": said},
    )


def device_lost(detail: str) -> TrainingFault:
    """Returns the fault of an accelerator that has failed, or that is not to be had."""
    return TrainingFault(
        Reason.DEVICE_LOST,
        f"The accelerator does not compute any more ({detail}).",
        "Look at the node's device and driver; the job goes on from its last checkpoint.",
        Fault.INFRASTRUCTURE,
        metadata={"detail": detail},
    )


def disk_full(consequence: str, detail: str) -> TrainingFault:
    """Returns the fault of a full disk.

    Args:
        consequence: What does not happen because of it, as a clause.
        detail: What the system said.
    """
    return TrainingFault(
        Reason.DISK_FULL,
        f"The disk is full, so {consequence}.",
        "Free space in the trainer's data folder, or lower checkpointing.keep_last.",
        Fault.INFRASTRUCTURE,
        metadata={"detail": detail},
    )


def is_disk_full(error: Exception) -> bool:
    """Tells whether an error of the system or of safetensors says that no space is left."""
    return getattr(error, "errno", None) == errno.ENOSPC or _says(error, _NO_SPACE)


def _says(error: Exception, *words: str) -> bool:
    text = str(error)
    return any(word in text for word in words)
