"""How long a run stands still for a checkpoint on a GPU: LoRA on the 7B shape, weights and moments of its adapters.

Ours: what `CheckpointSaved` tells; the copy goes to page-locked memory on a stream of its own. Peers, on the same
tensors: `torch.distributed.checkpoint.async_save` until it returns, and `torch.save` with an fsync. What a save adds to
a run is a step with a save before it beyond a step without one, which alternate.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from benchmarks.checkpoint_stall import ADDED_SHARE, BLOCKED_SHARE, async_save_seconds, timed
from benchmarks.gpu.throughput import Setting, make_engine, make_rows, one_step
from benchmarks.record import Record
from services.trainer.engine import checkpoints
from services.trainer.engine.corpus import Example
from services.trainer.engine.verbs import Engine

ROUNDS = 5

Named = Mapping[str, Mapping[str, torch.Tensor]]


def run(setting: Setting, device: torch.device) -> Record:
    """Makes the rounds and returns the record.

    Args:
        setting: A row of the throughput table; its steps are not looked at.
        device: Where the engine computes.
    """
    rows, *more = make_rows(replace(setting, steps=1))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engine, _ = make_engine(setting, device, folder)
        for each in (rows, *more):
            one_step(engine, each)
        engine.save_state(1, {})  # takes the page-locked memory, which the next ones use again
        state = _state(engine, device)
        rounds = [_round(folder / f"round-{number}", engine, rows, state) for number in range(ROUNDS)]
        is_equal = _is_equal(engine, state)
    return _record(setting, rounds, size=sum(each.nbytes for each in _tensors(state)), is_equal=is_equal)


def _state(engine: Engine, device: torch.device) -> Named:
    """Returns what was saved last, on the device: all but the states of random generators."""
    (ended,) = engine.settle()
    if isinstance(ended.result, Exception):
        raise ended.result
    read = checkpoints.load(ended.result).tensors
    return {file: {name: each.to(device) for name, each in read[file].items()} for file in ("weights", "optimizer")}


def _round(folder: Path, engine: Engine, rows: Sequence[Example], state: Named) -> dict[str, float]:
    folder.mkdir()
    with _with_device() as plain_step:
        one_step(engine, rows)
    with _with_device() as step_with_save:
        engine.save_state(2, {})
        one_step(engine, rows)
    (ended,) = engine.settle()
    with _with_device() as torch_save, (folder / "plain.pt").open("wb") as file:
        torch.save({name: dict(named) for name, named in state.items()}, file)
        os.fsync(file.fileno())
    places = [torch.empty_like(each, device="cpu", pin_memory=each.is_cuda) for each in _tensors(state)]
    with _with_device() as copy:
        for place, each in zip(places, _tensors(state), strict=True):
            place.copy_(each, non_blocking=True)
    found = {
        "ours": ended.blocked_seconds,
        "written": ended.written_seconds,
        "torch_save": torch_save[0],
        "async_save": async_save_seconds(folder, state),
        "copy": copy[0],
        "added": step_with_save[0] / plain_step[0] - 1,
    }
    shutil.rmtree(folder)
    return found


@contextmanager
def _with_device() -> Iterator[list[float]]:
    """Times a block with all that it has the device do."""
    _wait()
    with timed() as seconds:
        yield seconds
        _wait()


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _is_equal(engine: Engine, state: Named) -> bool:
    """Tells whether what is on disk is what the engine holds, bit for bit, and no longer what it began with."""
    engine.save_state(3, {})
    saved = _state(engine, next(iter(engine.parameters.values())).device)
    held = {name: parameter.detach() for name, parameter in engine.parameters.items()}
    is_same = all(torch.equal(tensor, held[name]) for name, tensor in saved["weights"].items())
    return is_same and not all(torch.equal(tensor, held[name]) for name, tensor in state["weights"].items())


def _tensors(state: Named) -> list[torch.Tensor]:
    return [tensor for named in state.values() for tensor in named.values()]


def _record(setting: Setting, rounds: Sequence[Mapping[str, float]], *, size: int, is_equal: bool) -> Record:
    def middle(key: str) -> float:
        return median(each[key] for each in rounds)

    blocked = median(each["ours"] / each["torch_save"] for each in rounds)
    at_most = {
        "blocked of torch.save": (blocked, BLOCKED_SHARE),
        "added to a step": (middle("added"), ADDED_SHARE["lora"]),
    }
    missed = [f"{name} > {limit:g}" for name, (found, limit) in at_most.items() if found > limit]
    return Record(
        name="gpu_checkpoint_stall",
        what=f"seconds that a run of {setting.shape.name} with LoRA stands still for a checkpoint",
        ours=middle("ours"),
        peer=middle("async_save"),
        peer_name="torch.distributed.checkpoint.async_save until it returns",
        ratio=median(each["async_save"] / each["ours"] for each in rounds),
        target=1.0,
        limit=middle("copy"),
        unit="s",
        equal_output=is_equal,
        command="python -m benchmarks.gpu gpu_checkpoint_stall",
        details={
            "bytes": size,
            "rounds": len(rounds),
            "written_s": middle("written"),
            "torch_save_s": middle("torch_save"),
            **{name: found for name, (found, _) in at_most.items()},
            "targets missed": ", ".join(missed) or "none",
        },
    )
