"""What libraries say of a lost process, as a person reads it."""

import pytest

from services.trainer.engine.faults import faults_named
from services.trainer.engine.training_task import Fault, TrainingFault
from tuneforge.errors import Reason

GLOO = (
    "[/__w/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:15244: Connection reset by "
    "peer. This is typically caused by a remote worker hanging."
)

ADVICE = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be "
    "incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\nCompile with `TORCH_USE_CUDA_DSA` to enable "
    "device-side assertions.\n"
)
"""What torch adds to every error of CUDA."""


def no_memory(detail: str) -> TrainingFault:
    """Returns a fault that none of these tests may see."""
    return TrainingFault(Reason.OUT_OF_MEMORY, detail, "")


def test_a_lost_process_is_named_without_places_in_source_code() -> None:
    """Gloo's words keep the address and the cause, and lose paths and advice; the fault is nobody's spec."""
    with pytest.raises(TrainingFault) as caught, faults_named(no_memory):
        raise RuntimeError(GLOO)
    fault = caught.value
    assert (fault.reason, fault.fault) == (Reason.GANG_BROKEN, Fault.INFRASTRUCTURE)
    assert fault.metadata == {"detail": "Read error [127.0.0.1]:15244: Connection reset by peer"}
    assert fault.message.endswith("(Read error [127.0.0.1]:15244: Connection reset by peer).")


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: uncorrectable ECC error encountered" + ADVICE,
        "CUDA error: unspecified launch failure" + ADVICE,
        "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
        "Found no NVIDIA driver on your system.",
        "No CUDA GPUs are available",
        "CUDA unknown error - this may be due to an incorrectly set up environment",
        "CUDA driver initialization failed, you might not have a CUDA gpu.",
        "Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized",
        "HIP error: unknown error",
    ],
)
def test_a_lost_device_is_nobodys_spec(words: str) -> None:
    """An accelerator that has failed costs an attempt of the infrastructure's budget, and is named."""
    with pytest.raises(TrainingFault) as caught, faults_named(no_memory):
        raise RuntimeError(words)
    assert (caught.value.reason, caught.value.fault) == (Reason.DEVICE_LOST, Fault.INFRASTRUCTURE)
    assert caught.value.metadata == {"detail": words.splitlines()[0].rstrip(".")}


@pytest.mark.parametrize(
    "words", ["CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"]
)
def test_memory_of_a_device_is_no_lost_device(words: str) -> None:
    """CUDA's own words for it name memory that ran out."""
    with pytest.raises(TrainingFault) as caught, faults_named(no_memory):
        raise RuntimeError(words + ADVICE)
    assert caught.value.reason is Reason.OUT_OF_MEMORY


@pytest.mark.parametrize(
    "words",
    [
        "shapes do not fit",
        "CUDA error: device-side assert triggered",
        "CUDA error: an illegal memory access was met",
        "CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling",
        "CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling",
    ],
)
def test_another_fault_of_torch_goes_through(words: str) -> None:
    """A plain error, or one that the program has made on its device, is not taken for a lost process or device."""
    with pytest.raises(RuntimeError, match=words), faults_named(no_memory):
        raise RuntimeError(words + ADVICE)
