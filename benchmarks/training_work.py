"""Makes the work of the training benchmarks: short chat rows in the order that our plan gives them, and an adapter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.contestants import Work
from benchmarks.train_ours import RANK, spec_of
from examples import smollm2
from services.modelkit.adapters import attach_lora, save_adapter
from services.modelkit.artifacts import LocalArtifact
from services.modelkit.loading import load_base
from services.trainer.engine.plan import StepPlan
from services.trainer.engine.randomness import seed_all
from services.trainer.engine.resolution import resolve
from services.trainer.engine.texts import Texts
from services.trainer.engine.training_task import TrainingInputs
from tuneforge.manifest import build
from tuneforge.specs.spec import LoraMethod

ROWS = Path("examples/support_routing/train.jsonl")


def make_work(folder: Path, *, compute: str, steps: int, rows_per_step: int, is_full: bool = False) -> Work:
    """Returns the first steps of a run over the example's rows.

    Args:
        folder: Where the initial adapter is written.
        compute: `bf16` or `fp32`.
        steps: Optimiser steps.
        rows_per_step: Rows of each.
        is_full: Whether every weight is trained.
    """
    weights = smollm2.ensure()
    manifest = build(weights)
    base = LocalArtifact(folder=weights, manifest=manifest, kind="model", ref_version="", digest=manifest.digest)
    work = Work(
        weights=str(weights),
        rows=str(ROWS),
        steps=[[]] * steps,
        adapter="" if is_full else str(folder / "adapter"),
        compute=compute,
        threads=torch.get_num_threads(),
        learning_rate=2e-5 if is_full else 1e-3,
    )
    spec = spec_of(work)
    task = TrainingInputs(
        spec=spec, base=[base], train=[ROWS], checkpoints=folder, attempt=1, output=folder, threads=work.threads
    )
    corpus = Texts(task, spec, lambda: None).train
    plan = StepPlan(seed=work.seed, rows=len(corpus.examples), rows_per_step=rows_per_step, total_steps=steps)
    for step in range(1, steps + 1):
        rows = [corpus.examples[row] for row in plan.rows_of(step)]
        work.steps[step - 1] = [
            {
                "input_ids": row.tokens_T.tolist(),
                "completion_mask": [int(place in set(row.labels_S.tolist())) for place in range(len(row.tokens_T))],
            }
            for row in rows
        ]
    if not is_full:
        seed_all(work.seed)
        model = load_base([base], dtype=torch.float32).model
        save_adapter(attach_lora(model, LoraMethod(rank=RANK), work.seed), folder / "adapter")
    found = resolve(spec_of(work), corpus, {}, base=weights, device=torch.device("cpu"), threads=work.threads)
    rows_at_once = found.spec.optimization.rows_per_micro_batch
    return replace(work, rows_at_once=rows_at_once, tokens_at_once=found.micro_batch_tokens)
