"""Whether every kind of result loads in plain transformers and peft, and computes what the engine computed at its end.

A tiny model is trained by each method; the logits that the engine has after the last step are held against those of the
files, loaded in a fresh process that imports nothing of ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file

from benchmarks.record import Record
from services.modelkit.artifacts import LocalArtifact
from services.trainer.engine import training
from services.trainer.engine.evaluation import measuring
from services.trainer.engine.results import finish
from services.trainer.engine.training_task import TrainingInputs
from tests.support.task_rows import write_task_rows
from tests.support.training_run import SPEC, RecordingSink, apart, never, tiny_inputs
from tuneforge.manifest import build
from tuneforge.specs.spec import (
    ContinuedPretrainingTask,
    FullMethod,
    LoraMethod,
    Merge,
    Method,
    PreferenceTask,
    QloraMethod,
    RewardModelTask,
    TrainingSpec,
    WeightFormat,
)

CLOSE = 1e-4
"""Largest difference of a logit that counts as equal, in float32."""
TOKENS = [4, 8, 15, 16, 23, 42, 99, 104, 105]
_OPTIMIZATION = replace(SPEC.optimization, max_steps=8, learning_rate=1e-2)
_LORA = LoraMethod(rank=4)
_METHODS: Mapping[str, Method] = {
    "lora": _LORA,
    "rslora": replace(_LORA, use_rslora=True),
    "dora": replace(_LORA, use_dora=True),
    "qlora": QloraMethod(lora=_LORA),
    "full": FullMethod(),
    "frozen layers": FullMethod(freeze_layers=1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One kind of result, loaded elsewhere."""

    name: str
    difference: float
    """Largest difference of a logit from the engine's."""
    learned: float
    """Largest difference of a logit of the engine from the base's; of a reward model, from nothing."""
    same_tokenizer: bool
    """Whether tokenizer and chat template write and read what those of the base do."""

    @property
    def is_equal(self) -> bool:
        """Whether it loads and computes the same."""
        return self.difference <= CLOSE and self.same_tokenizer


def specs() -> dict[str, TrainingSpec]:
    """Returns what is trained, by name."""
    plain = replace(SPEC, optimization=_OPTIMIZATION)
    found = {name: replace(plain, method=method) for name, method in _METHODS.items()}
    for name in ("lora", "dora", "qlora"):
        found[f"merged {name}"] = replace(found[name], merge=Merge(format=WeightFormat.FP32))
    found["continued pre-training"] = replace(plain, method=_LORA, task=ContinuedPretrainingTask())
    found["preference"] = replace(plain, method=_LORA, task=PreferenceTask())
    found["reward model"] = replace(plain, method=FullMethod(), task=RewardModelTask())
    return found


def loads(folder: Path) -> list[Load]:
    """Trains each kind in a folder and loads all of them elsewhere.

    Raises:
        RuntimeError: The other process failed, or had something of ours in it.
    """
    orders: dict[str, dict[str, Any]] = {}
    expected: dict[str, torch.Tensor] = {}
    for name, spec in specs().items():
        task = apart(tiny_inputs(folder, spec), name.replace(" ", "-"))
        if spec.task is not None and spec.task != SPEC.task:
            rows = task.output.parent / "rows.jsonl"
            rows.parent.mkdir()
            task = replace(task, train=[rows])
            write_task_rows(rows, spec.task)
        expected[name] = _train(task)
        orders[name] = _order(task, [])
        if name == "lora":
            below = LocalArtifact(
                folder=task.output, manifest=build(task.output), kind="adapter", ref_version="", digest="0" * 64
            )
            above = replace(apart(task, "stacked"), base=[*task.base, below])
            expected["adapter on adapter"] = _train(above)
            orders["adapter on adapter"] = _order(above, [str(task.output)])
    base = {"result": str(folder / "base"), "model": str(folder / "base"), "adapters": [], "four_bit": False}
    found, told = _elsewhere(folder, {**orders, "base": {**orders["lora"], **base}})
    return [
        Load(
            name=name,
            difference=float((found[name] - expected[name]).abs().max()),
            learned=float((expected[name] - (found["base"] if orders[name]["kind"] == "words" else 0)).abs().max()),
            same_tokenizer=told["same_tokenizer"][name],
        )
        for name in orders
    ]


def _order(task: TrainingInputs, below: list[str]) -> dict[str, Any]:
    is_adapter = (task.output / "adapter_config.json").exists()
    return {
        "kind": "scores" if isinstance(task.spec.task, RewardModelTask) else "words",
        "model": str(task.base[0].folder if is_adapter else task.output),
        "adapters": [*below, str(task.output)] if is_adapter else [],
        "four_bit": isinstance(task.spec.method, QloraMethod) and is_adapter,
        "result": str(task.output),
        "base": str(task.base[0].folder),
        "tokens": TOKENS,
    }


def _train(task: TrainingInputs) -> torch.Tensor:
    """Trains, and returns the logits that the engine's own model has after the last step."""
    seen: list[torch.Tensor] = []

    def looked_at(task: TrainingInputs, run: Any, prepared: Any, *rest: Any) -> Any:
        with measuring(prepared.model, torch.device("cpu")):
            seen.append(prepared.model(input_ids=torch.tensor([TOKENS])).logits[0].float().clone())
        return finish(task, run, prepared, *rest)

    with mock.patch.object(training, "finish", looked_at):
        training.train(task, RecordingSink(), never)
    return seen[0]


def _elsewhere(folder: Path, orders: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    orders_path, output = folder / "orders.json", folder / "logits.safetensors"
    orders_path.write_text(json.dumps(orders), encoding="utf-8")
    script = Path(__file__).with_name("plain_loading.py")
    # Isolated: neither this folder nor PYTHONPATH is searched, so that nothing of ours can be imported unseen.
    command = [sys.executable, "-I", str(script), str(orders_path), str(output)]
    ended = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=False
    )
    if ended.returncode:
        raise RuntimeError(ended.stderr[-4000:])
    told = json.loads(ended.stdout.splitlines()[-1])
    if told["strangers"]:
        raise RuntimeError(f"the other process had {told['strangers']} in it")
    return load_file(output), told


def run() -> Record:
    """Trains and loads every kind, and returns the record."""
    with tempfile.TemporaryDirectory() as folder:
        found = loads(Path(folder))
    equal = sum(each.is_equal for each in found)
    return Record(
        name="artifact_loads",
        what="kinds of results that plain transformers and peft load with the engine's logits (largest difference of a "
        "logit in `details`; a tiny Llama in float32)",
        ours=float(equal),
        peer=float(len(found)),
        peer_name="all kinds of results",
        ratio=equal / len(found),
        target=1.0,
        limit=float(len(found)),
        unit="kinds",
        equal_output=equal == len(found),
        command="make bench NAME=artifact_loads",
        details={each.name: each.difference for each in found},
    )
