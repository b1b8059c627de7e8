"""What libraries say of a lost process, as a person reads it."""

import pytest

from services.trainer.engine.faults import faults_named
from services.trainer.engine.training_task import Fault, TrainingFault
from tuneforge.errors import Reason

GLOO = (
    "[/__w/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:15244: Connection reset by "
    "peer. This is typically caused by a remote worker hanging."
)


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


def test_another_fault_of_torch_goes_through() -> None:
    """A plain error is not taken for a lost process."""
    with pytest.raises(RuntimeError, match="shapes"), faults_named(no_memory):
        raise RuntimeError("shapes do not fit")
