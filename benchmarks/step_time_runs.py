"""Runs for the benchmark of step times: each in a process forked from one that has imported all of it.

`python -m benchmarks.step_time_runs FOLDER` prints one JSON line a run: its name, whether it calibrates, the shapes and
rows that a prediction takes, and what the run was measured at. One thread and processor time, which is what the clock
would say on an idle core, so that other work on the machine does not count.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.memory_runs import SMALL, Case, architecture_of, forked, make_base
from examples import smollm2
from services.modelkit.artifacts import LocalArtifact
from services.trainer.engine import training
from services.trainer.engine.training_task import Payload, TrainingInputs
from tuneforge.manifest import build
from tuneforge.specs.spec import (
    Checkpointing,
    ComputeType,
    DataConfig,
    Guards,
    LoraMethod,
    Optimization,
    OverlongPolicy,
    Resources,
    TrainingSpec,
)
from tuneforge.specs.workload import flops_per_token
from tuneforge.v1 import events_pb2

STEPS = 4
MAX_TOKENS = 512
ROWS = Path("examples/support_routing/train.jsonl")
LONG_WORDS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One run."""

    base: str
    name: str = "calibration"
    rank: int = 16
    targets: tuple[str, ...] = ()
    rows_per_step: int = 4
    is_long: bool = False
    """Whether its rows are long and begin differently; else they are short and begin alike."""
    compute: ComputeType = ComputeType.BF16


BASES = ("small llama", "smollm2")
SHAPES: Sequence[Shape] = tuple(
    replace(shape, base=base)
    for base in BASES
    for shape in (
        Shape(base=""),
        Shape(base="", name="rank 64", rank=64),
        Shape(base="", name="12 rows a step", rows_per_step=12),
        Shape(base="", name="two targets", rank=8, targets=("q_proj", "v_proj")),
        Shape(base="", name="long rows", is_long=True),
    )
)


class _Watch:
    """Takes the processor time at the end of each step."""

    def __init__(self) -> None:
        self.ends_s: list[float] = []

    def emit(self, payload: Payload) -> None:
        """Takes one report."""
        if isinstance(payload, events_pb2.Resolved | events_pb2.StepMetrics):
            self.ends_s.append(time.process_time())


def main(folder: Path) -> int:
    """Prints a line for each run."""
    training.preload()
    small = forked(lambda: make_base(folder, Case(family="llama", size=SMALL)))
    if small is None:
        return 1
    bases = {"small llama": Path(small), "smollm2": smollm2.ensure()}
    long = _long_rows(folder)
    for shape in SHAPES:
        line = forked(lambda shape=shape: _train(folder, bases[shape.base], shape, long if shape.is_long else ROWS))
        if line is None:
            return 1
        print(line, flush=True)
    return 0


def _long_rows(folder: Path) -> Path:
    """Writes rows with long answers: all of their text is learned, and little of it begins as in another one."""
    words = ROWS.read_text().replace('"', " ").replace("{", " ").replace("}", " ").replace("\\", " ").split()
    path = folder / "long.jsonl"
    texts = (" ".join(words[start : start + LONG_WORDS]) for start in range(37, 37 + 16 * LONG_WORDS, LONG_WORDS))
    turns = ([{"role": "user", "content": "Go on."}, {"role": "assistant", "content": text}] for text in texts)
    path.write_text("".join(json.dumps({"messages": each}) + "\n" for each in turns))
    return path


def _characters(rows: Path) -> float:
    """Returns the characters of a row in the middle, as the registry counts them."""
    texts = ([turn["content"] for turn in json.loads(line)["messages"]] for line in rows.read_text().splitlines())
    return statistics.mean(sum(map(len, each)) for each in texts)


def _train(folder: Path, base: Path, shape: Shape, rows: Path) -> str:
    manifest = build(base)
    spec = TrainingSpec(
        method=LoraMethod(rank=shape.rank, target_modules=shape.targets),
        data=DataConfig(max_tokens=MAX_TOKENS, overlong=OverlongPolicy.TRUNCATE),
        optimization=Optimization(max_steps=STEPS, rows_per_step=shape.rows_per_step, learning_rate=1e-4),
        compute=shape.compute,
        checkpointing=Checkpointing(every_steps=0),
        resources=Resources(devices_per_node=0),
        guards=Guards(allow_no_effect=True),
    )
    place = folder / f"run-{os.getpid()}"
    watch = _Watch()
    task = TrainingInputs(
        spec=spec,
        base=[LocalArtifact(folder=base, manifest=manifest, kind="model", ref_version="", digest=manifest.digest)],
        train=[rows],
        checkpoints=place / "checkpoints",
        attempt=1,
        output=place / "output",
        threads=1,
    )
    result = training.train(task, watch, lambda: None)
    steps_s = [after - before for before, after in zip(watch.ends_s, watch.ends_s[1:], strict=False)]
    tokens = result.metrics["computed_tokens"]
    row_tokens = tokens / (STEPS * shape.rows_per_step)
    return json.dumps(
        {
            "name": f"{shape.base}, {shape.name}",
            "calibrates": shape.name == "calibration",
            "flops_per_token": flops_per_token(spec, architecture_of(base), row_tokens),
            "tokens": tokens,
            "row_tokens": row_tokens,
            "rows_per_step": shape.rows_per_step,
            "characters": _characters(rows) if shape.is_long else 0.0,
            "seconds": sum(steps_s),
            "step_s": statistics.median(steps_s),
        }
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
