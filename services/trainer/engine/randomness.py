"""Every random number generator that a run could draw from, as tensors: read for a checkpoint, put back at a resume."""

import contextlib
import os
import random
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from services.trainer.engine.training_task import TrainingFault
from tuneforge.errors import Reason


@contextlib.contextmanager
def exact_kernels(*, is_asked: bool) -> Iterator[None]:
    """Has torch choose only kernels that give the same bits each time, and puts back what was there.

    Raises:
        TrainingFault: INVALID_FIELD, when something has no such kernel.
    """
    if not is_asked:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    # cuBLAS reads it when it is first used; without it its sums may be split otherwise from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        raise TrainingFault(
            Reason.INVALID_FIELD,
            f"precision.deterministic is set, and torch says: {str(error).splitlines()[0]}",
            "Leave precision.deterministic out, or choose another method or optimiser.",
            metadata={"field": "precision.deterministic"},
        ) from error
    finally:
        torch.use_deterministic_algorithms(before)


def seed_all(seed: int) -> None:
    """Seeds every generator from the seed of the run, 0 <= seed < 2^64."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)  # of all devices


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Returns the state of every generator."""
    _, python_words, _ = random.getstate()
    _, numpy_words, numpy_position, *_ = np.random.get_state(legacy=True)
    state = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(python_words, dtype=torch.int64),
        "numpy": torch.tensor([*np.asarray(numpy_words).tolist(), numpy_position], dtype=torch.int64),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Puts back what `random_state` gave."""
    torch.set_rng_state(state["torch"])
    random.setstate((3, tuple(state["python"].tolist()), None))
    *numpy_words, numpy_position = state["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(numpy_words, dtype=np.uint32), numpy_position, 0, 0.0))
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
