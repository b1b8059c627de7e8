"""How long a run stands still for a checkpoint, beside PyTorch's ways to save the same state.

SmolLM2-135M, all weights moving: 135M weights and two moments each. Ours: what `CheckpointSaved` tells of the saves of
a run. Peers, on the tensors of that run: `torch.distributed.checkpoint.async_save` until it returns, `torch.save` with
an fsync, and our own save made synchronously. Equal work: what is read back is what was saved, bit for bit.

The time that saves add to a run, slower steps included, comes from one run a method whose steps are all alike: a save
every `2 * BLOCK` steps, so that blocks of `BLOCK` steps beside a write alternate with blocks without one. What a block
with a save takes beyond the next block is what a save every `BLOCK` steps adds. A write that is not over within its
block refutes the run. Few pairs: the median stands beside the lowest and the highest.
"""

from __future__ import annotations

import math
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from benchmarks.record import Record
from examples import smollm2
from services.modelkit.artifacts import LocalArtifact
from services.trainer.engine import checkpoints
from services.trainer.engine.checkpoint_writer import CheckpointWriter
from services.trainer.engine.training import preload, train
from services.trainer.engine.training_task import Payload, StopRequest, TrainingInputs
from tuneforge.manifest import build
from tuneforge.specs.spec import (
    Checkpointing,
    ComputeType,
    FullMethod,
    LoraMethod,
    Method,
    Optimization,
    TrainingSpec,
)
from tuneforge.v1 import events_pb2

ROUNDS = 3
PAIRS = 5
BLOCK = 16
"""Steps; about 15 s of full tuning on two cores, three times what a write takes there."""
BLOCKED_SHARE = 0.05
"""Of a synchronous save, at most."""
ADDED_SHARE = {"lora": 0.05, "full": 0.25}
"""Of the run's time, at most, with a save every `BLOCK` steps."""
STEP_ROWS = 8
"""Rows of the file and of a step: every step has the same ones."""
ROWS = Path("examples/support_routing/train.jsonl")
METHODS: dict[str, Method] = {"lora": LoraMethod(rank=16), "full": FullMethod()}


class _Blocks:
    """When each step was over and each save written, by the clock of the process."""

    def __init__(self) -> None:
        self.steps: dict[int, float] = {}
        self.saves: dict[int, float] = {}
        self.blocked_seconds: list[float] = []
        self.written_seconds: list[float] = []

    def emit(self, payload: Payload) -> None:
        """Notes the time of a step or of the end of a save."""
        if isinstance(payload, events_pb2.StepMetrics):
            self.steps[payload.step] = time.monotonic()
        if isinstance(payload, events_pb2.CheckpointSaved):
            self.saves[payload.step] = time.monotonic()
            self.blocked_seconds.append(payload.blocked_seconds)
            self.written_seconds.append(payload.written_seconds)

    def stop(self) -> StopRequest | None:
        """Ends the run when its blocks are done, before it writes a result."""
        return StopRequest.CANCEL if len(self.steps) >= BLOCK * (2 + 2 * PAIRS) else None

    def added_shares(self) -> list[float]:
        """Returns of each save what its block took beyond the next one, as a share of that.

        Raises:
            RuntimeError: A save was not written within its block, so that the next one is no measure.
        """
        shares = []
        for save in range(2 * BLOCK, BLOCK * (1 + 2 * PAIRS), 2 * BLOCK):
            begin, middle, end = (self.steps[step] for step in (save, save + BLOCK, save + 2 * BLOCK))
            if self.saves.get(save, math.inf) > middle + (end - middle) / BLOCK / 2:
                raise RuntimeError(f"the save after step {save} was not written within {BLOCK} steps: raise BLOCK")
            shares.append((middle - begin) / (end - middle) - 1)
        return shares


def run() -> Record:
    """Runs the rounds and returns the record."""
    weights = smollm2.ensure()
    preload()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = root / "rows.jsonl"
        rows.write_text("\n".join(ROWS.read_text().splitlines()[:STEP_ROWS]) + "\n")
        tasks = {name: _inputs(root, weights, name) for name in METHODS}
        runs = {name: _run(task) for name, task in tasks.items()}
        state = _state(tasks["full"])
        rounds = [_round(root / f"round-{number}", state) for number in range(ROUNDS)]
        is_equal = _is_equal(root, state)
    return _record(rounds, runs, checkpoints_bytes=_size(state), is_equal=is_equal)


def _inputs(root: Path, weights: Path, method: str) -> TrainingInputs:
    manifest = build(weights)
    base = LocalArtifact(folder=weights, manifest=manifest, kind="model", ref_version="", digest=manifest.digest)
    return TrainingInputs(
        spec=TrainingSpec(
            method=METHODS[method],
            optimization=Optimization(max_steps=BLOCK * (3 + 2 * PAIRS), rows_per_step=STEP_ROWS, learning_rate=1e-5),
            checkpointing=Checkpointing(every_steps=2 * BLOCK, keep_last=1),
            compute=ComputeType.BF16,
        ),
        base=[base],
        train=[root / "rows.jsonl"],
        checkpoints=root / method / "checkpoints",
        attempt=1,
        output=root / method / "output",
        threads=os.cpu_count() or 1,
    )


def _run(task: TrainingInputs) -> _Blocks:
    blocks = _Blocks()
    train(task, blocks, blocks.stop)
    return blocks


def _state(task: TrainingInputs) -> checkpoints.Checkpoint:
    """Returns the state that a run saved last, in memory."""
    newest = next(found for found in checkpoints.saved(task.checkpoints))
    if not isinstance(newest, checkpoints.SavedCheckpoint):
        raise newest
    return checkpoints.load(newest)


def _round(folder: Path, state: checkpoints.Checkpoint) -> dict[str, float]:
    """Saves a state in the other ways, twice in the asynchronous one, for the second time it may reuse its memory."""
    with timed() as synchronous:
        checkpoints.save(folder / "synchronous", state, keep_last=1)
    with timed() as plain, (folder / "plain.pt").open("wb") as file:
        torch.save(dict(state.tensors), file)
        os.fsync(file.fileno())
    found = {
        "synchronous": synchronous[0],
        "torch_save": plain[0],
        "async_save": async_save_seconds(folder, state.tensors),
        "copy": _copy_seconds(state),
    }
    shutil.rmtree(folder)
    return found


def async_save_seconds(folder: Path, tensors: Mapping[str, Mapping[str, torch.Tensor]]) -> float:
    """Returns how long PyTorch's `async_save` takes to return; the second one, for it uses its memory again."""
    store = dist.FileStore(str(folder / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        for number in (1, 2):
            with timed() as blocked:
                pending = dcp.async_save(dict(tensors), checkpoint_id=str(folder / f"dcp-{number}"))
            pending.result()
    finally:
        dist.destroy_process_group()
    return blocked[0]


def _copy_seconds(state: checkpoints.Checkpoint) -> float:
    """Returns how long a plain copy into warm memory takes: what a run stands still for that waits for its snapshot."""
    tensors = [tensor for named in state.tensors.values() for tensor in named.values()]
    places = [tensor.clone() for tensor in tensors]
    with timed() as seconds:
        for place, tensor in zip(places, tensors, strict=True):
            place.copy_(tensor)
    return seconds[0]


def _is_equal(root: Path, state: checkpoints.Checkpoint) -> bool:
    writer = CheckpointWriter(root / "equal", keep_last=1)
    writer.begin(state, ())
    (ended,) = writer.ended(wait=True)
    if not isinstance(ended.result, checkpoints.SavedCheckpoint):
        return False
    read = checkpoints.load(ended.result)
    return all(
        torch.equal(tensor, read.tensors[file][name])
        for file, named in state.tensors.items()
        for name, tensor in named.items()
    )


def _size(state: checkpoints.Checkpoint) -> int:
    return sum(tensor.nbytes for named in state.tensors.values() for tensor in named.values())


@contextmanager
def timed() -> Iterator[list[float]]:
    """Gives a list that has the seconds of the block when it is over."""
    seconds: list[float] = []
    began = time.monotonic()
    yield seconds
    seconds.append(time.monotonic() - began)


def _record(
    rounds: list[dict[str, float]], runs: dict[str, _Blocks], *, checkpoints_bytes: int, is_equal: bool
) -> Record:
    def median(key: str) -> float:
        return statistics.median(each[key] for each in rounds)

    ours, added = (
        statistics.median(runs["full"].blocked_seconds),
        {name: run.added_shares() for name, run in runs.items()},
    )
    figures = {"blocked_of_synchronous": ours / median("synchronous")}
    figures |= {f"added_wall_time_{name}": statistics.median(shares) for name, shares in added.items()}
    at_most = {"blocked_of_synchronous": BLOCKED_SHARE}
    at_most |= {f"added_wall_time_{name}": value for name, value in ADDED_SHARE.items()}
    missed = [f"{name} > {limit:g}" for name, limit in at_most.items() if figures[name] > limit]
    return Record(
        name="checkpoint_stall",
        what="seconds that a run of SmolLM2-135M, all weights moving, stands still for a checkpoint",
        ours=ours,
        peer=median("async_save"),
        peer_name="torch.distributed.checkpoint.async_save until it returns",
        ratio=median("async_save") / ours,
        target=1.0,
        limit=0.0,
        unit="s",
        equal_output=is_equal,
        command="make bench NAME=checkpoint_stall",
        details={
            "bytes": checkpoints_bytes,
            "rounds": len(rounds),
            "pairs of blocks": PAIRS,
            "steps of a block": BLOCK,
            "blocked_at_most_s": max(runs["full"].blocked_seconds),
            "written_s": statistics.median(runs["full"].written_seconds),
            "plain_copy_s": median("copy"),
            "synchronous_s": median("synchronous"),
            "torch_save_s": median("torch_save"),
            **figures,
            **{f"added_wall_time_{name}_lowest": min(shares) for name, shares in added.items()},
            **{f"added_wall_time_{name}_highest": max(shares) for name, shares in added.items()},
            **{f"{name}_at_most": limit for name, limit in at_most.items()},
            "targets missed": ", ".join(missed) or "none",
        },
    )
