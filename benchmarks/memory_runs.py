"""Runs of small models for the memory benchmark: each in a process forked from one that has imported all of it.

`python -m benchmarks.memory_runs FOLDER` trains each configuration for three steps and prints one JSON line
for it: what was predicted, and what the run's own peak was. Random weights: memory does not know the difference.
"""

from __future__ import annotations

import json
import os
import random
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from services.modelkit.artifacts import LocalArtifact
from services.trainer.engine import training
from services.trainer.engine.training_task import Payload, TrainingInputs
from tests.support.tiny_model import make_tiny_model
from tuneforge.manifest import build
from tuneforge.specs.architecture import Architecture, TensorShape
from tuneforge.specs.memory import estimate
from tuneforge.specs.spec import (
    Checkpointing,
    ComputeType,
    DataConfig,
    FullMethod,
    Guards,
    LoraMethod,
    Method,
    Optimization,
    Optimizer,
    QloraMethod,
    Resources,
    TrainingSpec,
)

STEPS = 3
SMALL, MIDDLE = (256, 4, 4, 8_000), (512, 6, 8, 32_000)
"""Width, blocks, heads and words."""
LORA, FULL = LoraMethod(rank=8), FullMethod()
QLORA = QloraMethod(lora=LORA)
BF16, FP32 = ComputeType.BF16, ComputeType.FP32
CLASSES = {"llama": "Llama", "qwen2": "Qwen2", "mistral": "Mistral", "gemma": "Gemma", "phi3": "Phi3", "gpt2": "GPT2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One run."""

    family: str
    size: tuple[int, int, int, int] = SMALL
    method: Method = LORA
    compute: ComputeType = FP32
    tokens: int = 256
    rows: int = 2
    """Rows of a micro-batch; 0 leaves it to the engine."""
    optimizer: Optimizer = Optimizer.ADAMW
    stored: str = "float32"
    """Format of the base's files."""

    @property
    def name(self) -> str:
        """What it is, for people."""
        size = "small" if self.size == SMALL else "middle"
        stored = "" if self.stored == "float32" else f" from {self.stored}"
        kind = type(self.method).__name__.removesuffix("Method").lower()
        if isinstance(self.method, FullMethod) and self.method.freeze_layers:
            kind += f" above layer {self.method.freeze_layers}"
        rows = self.rows or "auto"
        return f"{self.family} {size}{stored}, {kind} {self.compute}, {self.optimizer}, {rows} x {self.tokens}"


CASES: Sequence[Case] = (
    *(Case(family=family) for family in CLASSES),
    *(Case(family=family, size=MIDDLE, compute=BF16, rows=4) for family in CLASSES),
    *(Case(family=family, method=FULL) for family in ("llama", "qwen2", "mistral", "gpt2")),
    *(Case(family=family, size=MIDDLE, method=FULL, compute=BF16, tokens=128, rows=4) for family in ("llama", "gemma")),
    *(Case(family=family, size=MIDDLE, method=QLORA, compute=BF16) for family in ("llama", "qwen2", "mistral")),
    Case(family="llama", size=MIDDLE, method=QLORA),
    *(
        Case(family="llama", size=MIDDLE, method=FULL, optimizer=optimizer)
        for optimizer in (Optimizer.SGD, Optimizer.ADAFACTOR, Optimizer.ADAMW_8BIT)
    ),
    Case(family="llama", size=MIDDLE, compute=BF16, stored="bfloat16"),
    Case(family="llama", size=MIDDLE, method=FullMethod(freeze_layers=3)),
    Case(family="qwen2", size=MIDDLE, rows=0),
    Case(family="llama", size=MIDDLE, tokens=1024, rows=1, compute=BF16),
)


class _Silence:
    def emit(self, payload: Payload) -> None:
        """Takes no note."""


def main(folder: Path) -> int:
    """Prints a line for each case."""
    training.preload()
    for case in CASES:
        base = forked(lambda case=case: make_base(folder, case))
        if base is None:
            return 1
        line = forked(lambda case=case, base=base: _train(folder, Path(base), case))
        if line is None:
            return 1
        print(line, flush=True)
    return 0


def forked(work: Any) -> str | None:
    """Returns what a function gives in a process of its own; None when that failed."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        code = 1
        try:
            os.write(writer, str(work()).encode())
            code = 0
        except Exception:  # noqa: BLE001 - the parent goes on
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    return answer if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0 else None


def make_base(folder: Path, case: Case) -> Path:
    """Writes a model with random weights and the tokenizer of the tiny one, unless it is there."""
    import torch
    import transformers

    width, blocks, heads, words = case.size
    path = folder / f"{case.family}-{width}-{case.stored}"
    if (path / "config.json").exists():
        return path
    make_tiny_model(path)
    ends = {key: json.loads((path / "config.json").read_text())[key] for key in ("bos_token_id", "eos_token_id")}
    name = CLASSES[case.family]
    sides: dict[str, Any] = {
        "vocab_size": words,
        "hidden_size": width,
        "intermediate_size": 2 * width + width // 2,
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "max_position_embeddings": 2048,
    }
    if case.family == "gpt2":
        none = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        sides = {"vocab_size": words, "n_embd": width, "n_layer": blocks, "n_head": heads, "n_positions": 2048, **none}
    if case.family == "gemma":
        sides["head_dim"] = width // heads
    config = getattr(transformers, f"{name}Config")(**sides, **ends, pad_token_id=ends["eos_token_id"])
    suffix = "LMHeadModel" if case.family == "gpt2" else "ForCausalLM"
    getattr(transformers, name + suffix)(config).to(getattr(torch, case.stored)).save_pretrained(path)
    return path


def _rows(folder: Path, tokens: int) -> Path:
    """Writes rows of nearly so many tokens, almost all of them answer: the tokenizer knows letters only."""
    path = folder / f"rows-{tokens}.jsonl"
    chance = random.Random(0)
    lines = []
    for _ in range(8):
        answer = "".join(chance.choice("bcdfgjklmpqvwxyz") for _ in range(tokens - 40))
        turns = [{"role": "user", "content": "Go."}, {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"messages": turns}) + "\n")
    path.write_text("".join(lines))
    return path


def spec_of(case: Case) -> TrainingSpec:
    """Returns the spec of a case."""
    return TrainingSpec(
        method=case.method,
        data=DataConfig(max_tokens=case.tokens),
        optimization=Optimization(
            max_steps=STEPS, rows_per_step=4, rows_per_micro_batch=case.rows, optimizer=case.optimizer
        ),
        compute=case.compute,
        checkpointing=Checkpointing(every_steps=1),
        resources=Resources(devices_per_node=0),
        guards=Guards(allow_no_effect=True),
    )


def _train(folder: Path, base: Path, case: Case) -> str:
    manifest, spec = build(base), spec_of(case)
    artifact = LocalArtifact(folder=base, manifest=manifest, kind="model", ref_version="", digest=manifest.digest)
    place = folder / f"run-{os.getpid()}"
    task = TrainingInputs(
        spec=spec,
        base=[artifact],
        train=[_rows(folder, case.tokens)],
        checkpoints=place / "checkpoints",
        attempt=1,
        output=place / "output",
        threads=2,
    )
    predicted = estimate(spec, architecture_of(base))
    result = training.train(task, _Silence(), lambda: None)
    return json.dumps(
        {
            "case": case.name,
            "family": case.family,
            "predicted": predicted.total_bytes,
            "granted": predicted.highest_bytes,
            "real": result.metrics["peak_memory_bytes"],
            "peer": accelerate_bytes(architecture_of(base), spec),
        }
    )


def accelerate_bytes(architecture: Architecture, spec: TrainingSpec) -> int:
    """Returns what `accelerate estimate-memory` says of training with Adam: four times the weights in their format."""
    size = 2 if spec.compute is ComputeType.BF16 else 4
    return 4 * size * architecture.parameters


def architecture_of(base: Path) -> Architecture:
    """Returns the shapes of a base."""
    config = json.loads((base / "config.json").read_text())
    tensors = []
    for path in sorted(base.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                found = file.get_slice(name)
                tensors.append(TensorShape(name=name, shape=tuple(found.get_shape()), dtype=found.get_dtype()))
    return Architecture(class_name=config["architectures"][0], config=config, tensors=tuple(tensors))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
