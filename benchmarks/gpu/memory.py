"""Predicted peak memory of a GPU beside the allocator's own, over the shapes of four models.

Predicted is what a job is admitted by, without CUDA's context and libraries, which the allocator does not count. Peer:
the arithmetic of `accelerate estimate-memory`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.gpu.shapes import QWEN_0P5B, QWEN_1P5B, QWEN_7B, SMOLLM2_135M, write_config
from benchmarks.gpu.throughput import Setting, make_rows, ours
from benchmarks.memory import Line, record, table
from benchmarks.memory_runs import accelerate_bytes
from benchmarks.record import Record
from services.trainer.engine.recompute import architecture_of, shaped
from tuneforge.specs.memory import estimate

NEAR = 0.10
TOKENS = (2048, 8192, 16384)
SHAPES = {
    "lora": (SMOLLM2_135M, QWEN_0P5B, QWEN_1P5B, QWEN_7B),
    "qlora": (SMOLLM2_135M, QWEN_0P5B, QWEN_1P5B, QWEN_7B),
    "full": (SMOLLM2_135M, QWEN_0P5B),
}


def settings() -> Iterator[Setting]:
    """Yields the configurations."""
    for method, shapes in SHAPES.items():
        for shape in shapes:
            for tokens in TOKENS:
                yield Setting(shape=shape, method=method, tokens_at_once=tokens, step_tokens=2 * tokens, steps=1)


def run(cases: Sequence[Setting], device: torch.device) -> Record:
    """Makes three steps of each configuration and returns the record."""
    lines = [_line(setting, device) for setting in cases]
    print(table(lines), flush=True)
    found = record(lines, near=NEAR)
    details = {name: value for name, value in found.details.items() if "our figure for libraries" not in name}
    return replace(found, name="gpu_memory", command="python -m benchmarks.gpu gpu_memory", details=details)


def _line(setting: Setting, device: torch.device) -> Line:
    made = ours(setting, make_rows(setting), device)
    with tempfile.TemporaryDirectory() as name:
        architecture = architecture_of(write_config(setting.shape, Path(name)))
    found = estimate(shaped(setting.spec, setting.tokens_at_once, made.recompute), architecture, on_cpu=False)
    return Line(
        case=f"{setting.shape.name}, {setting.method}, {setting.tokens_at_once} tokens, recompute {made.recompute}",
        family=setting.shape.name,
        predicted=found.total_bytes - found.overhead_bytes,
        granted=found.highest_bytes - found.overhead_bytes,
        real=made.peak_bytes or 1,
        peer=accelerate_bytes(architecture, setting.spec),
    )
