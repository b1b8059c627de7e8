"""The saved state of a gang: one checkpoint that the first process writes and reads, whoever holds what of it.

Only the first process's node need have the files. To the others it sends what they need: facts and small tensors at
once, each other one when it is put back, and none of it pickled.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from services.trainer.engine import checkpoints
from services.trainer.engine.checkpoint_writer import EndedSave
from services.trainer.engine.gang import Gang
from services.trainer.engine.training_task import Fault, TrainingFault
from tuneforge.errors import Reason
from tuneforge.manifest import Manifest

_SMALL = ("random", "scale")
"""Files of a checkpoint that every process reads itself; each of their tensors is a few numbers."""


def collected_random(gang: Gang, own: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns the random states of all processes: those of the first under their names, others as `{rank}:{name}`."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in own.items():
        for rank, state in enumerate(gang.collect(tensor)):
            found[f"{rank}:{name}" if rank else name] = state
    return found


def own_random(gang: Gang, collected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns this process's states out of what `collected_random` gave."""
    prefix = "" if gang.is_first else f"{gang.rank}:"
    return {
        name.removeprefix(prefix): state
        for name, state in collected.items()
        if name.startswith(prefix) and ":" not in name.removeprefix(prefix)
    }


def shared(gang: Gang, found: checkpoints.Checkpoint | None) -> checkpoints.Checkpoint | None:
    """Returns the checkpoint that the first process has found, to all. Collective.

    In the others weights and optimiser have shapes only (`meta` tensors): see `SpreadModel.scattered`. Random
    states and the scale of the loss are there for all.
    """
    if gang.is_alone:
        return found
    told = gang.tell(lambda: None if found is None else _described(found))
    if told is None:
        return None
    if found is None:
        tensors = {file: {name: _shape(*each) for name, each in named} for file, named in told.pop("tensors")}
        found = checkpoints.Checkpoint(**told, tensors=tensors)
    small = {
        file: {
            name: gang.share(torch.empty_like(state, device="cpu") if state.is_meta else state)
            for name, state in found.tensors[file].items()
        }
        for file in _SMALL
        if file in found.tensors
    }
    return replace(found, tensors={**found.tensors, **small})


def _described(found: checkpoints.Checkpoint) -> dict[str, Any]:
    tensors = [
        (file, [(name, (str(each.dtype), list(each.shape))) for name, each in named.items()])
        for file, named in found.tensors.items()
    ]
    return {
        "step": found.step,
        "attempt": found.attempt,
        "digest": found.digest,
        "facts": dict(found.facts),
        "tensors": tensors,
    }


def _shape(dtype: str, shape: list[int]) -> torch.Tensor:
    return torch.empty(shape, dtype=getattr(torch, dtype.removeprefix("torch.")), device="meta")


def ended_at_first(gang: Gang, ended: Callable[[], list[EndedSave]]) -> list[EndedSave]:
    """Returns to all processes which saves of the first one are over, so that all go on in the same way. Collective.

    Args:
        gang: The processes.
        ended: Gives the saves that are over; called in the first process only.
    """
    if gang.is_alone:
        return ended()
    own: list[EndedSave] = []

    def tell() -> list[dict[str, Any]]:
        own.extend(ended())
        return [_told(each) for each in own]

    told = gang.tell(tell)
    return own if gang.is_first else [_heard(each) for each in told]


def _told(ended: EndedSave) -> dict[str, Any]:
    content: dict[str, Any] = {"step": ended.step}
    if isinstance(ended.result, checkpoints.SavedCheckpoint):
        return content | {"manifest": ended.result.manifest.to_json()}
    if isinstance(ended.result, TrainingFault):
        fault = ended.result
        return content | {"fault": [fault.reason.value, fault.message, fault.cure, fault.fault.value]}
    return content | {"fault": [Reason.GANG_BROKEN.value, "The first process could not save.", "", "infrastructure"]}


def _heard(told: Mapping[str, Any]) -> EndedSave:
    result: checkpoints.SavedCheckpoint | Exception
    if "fault" in told:
        reason, message, cure, fault = told["fault"]
        result = TrainingFault(Reason(reason), message, cure, Fault(fault))
    else:
        manifest = Manifest.from_json(told["manifest"])
        result = checkpoints.SavedCheckpoint(step=told["step"], folder=Path(), manifest=manifest)
    return EndedSave(step=told["step"], result=result, blocked_seconds=0.0, written_seconds=0.0)
