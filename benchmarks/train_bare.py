"""Contestant: a bare training loop: no service, no events, no plan, no checks.

    python -m benchmarks.train_bare WORK.json plain|same

Products in bfloat16 with frozen matrices kept so, like lengths computed together, the head at learned tokens only,
fused AdamW. `plain` fills rows up, as a person who knows the libraries would write it. `same` lays rows out as our
engine does, by its own functions, so that what ours costs beyond it is the cost of a service.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.contestants import Round, Stopwatch, Work, rounds
from services.trainer.engine.batches import BatchLimits, attention_share, micro_batches
from services.trainer.engine.corpus import Example
from services.trainer.engine.losses import supervised_loss

Row = dict[str, list[int]]
Losses = Callable[[list[Row]], Iterator[torch.Tensor]]
"""Yields the sum of the losses of each part of a step."""


def main(path: str, kind: str) -> None:
    """Prepares and makes rounds."""
    work = Work.read(path)
    torch.set_num_threads(work.threads)
    torch.manual_seed(work.seed)
    causal, model = _load(work)
    model.train()
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    initial = [parameter.detach().clone() for parameter in weights]
    losses_of = _plain(causal, work) if kind == "plain" else _same(causal, model, work)

    def make() -> Round:
        with torch.no_grad():
            for parameter, value in zip(weights, initial, strict=True):
                parameter.copy_(value)
        return _train(work, weights, losses_of)

    rounds(make)


def _load(work: Work) -> tuple[Any, Any]:
    """Returns the model, and PEFT's wrapping of it where there are adapters."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    causal = AutoModelForCausalLM.from_pretrained(work.weights, dtype=torch.float32, attn_implementation="sdpa")
    if not work.adapter:
        return causal, causal
    model = PeftModel.from_pretrained(causal, work.adapter, is_trainable=True)
    if work.compute == "bf16":
        for module in causal.model.layers.modules():
            if isinstance(module, torch.nn.Linear) and not module.weight.requires_grad:
                module.weight.data = module.weight.data.to(torch.bfloat16)
    return causal, model


def _train(work: Work, weights: list[torch.nn.Parameter], losses_of: Losses) -> Round:
    optimizer = torch.optim.AdamW(weights, lr=work.learning_rate, weight_decay=0.0, fused=True)
    losses, norms = [], []
    watch = Stopwatch()
    watch.start()
    for step in work.steps:
        learned = sum(sum(row["completion_mask"]) for row in step)
        total = 0.0
        is_bf16 = work.compute == "bf16"
        with torch.autocast("cpu", dtype=torch.bfloat16) if is_bf16 else contextlib.nullcontext():
            for loss in losses_of(step):
                (loss / learned).backward()
                total += loss.item()
        norms.append(float(torch.nn.utils.clip_grad_norm_(weights, 1.0)))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total / learned)
        if len(losses) == 1:
            first_cpu, _ = watch.read()
    cpu, wall = watch.read()
    return Round(cpu_s=cpu, first_cpu_s=first_cpu, wall_s=wall, losses=losses, grad_norms=norms)


def _plain(causal: Any, work: Work) -> Losses:
    """Lays out one row a line, rows of like length together."""

    def loss(rows: list[Row]) -> torch.Tensor:
        longest = max(len(row["input_ids"]) for row in rows)
        tokens_BT = torch.zeros(len(rows), longest, dtype=torch.long)
        predictors, targets = [], []
        for line, row in enumerate(rows):
            tokens_BT[line, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
            for place, is_learned in enumerate(row["completion_mask"]):
                if is_learned:
                    predictors.append(line * longest + place - 1)
                    targets.append(row["input_ids"][place])
        hidden_BTD = causal.model(input_ids=tokens_BT, use_cache=False).last_hidden_state
        hidden_SD = hidden_BTD.flatten(0, 1).index_select(0, torch.tensor(predictors))
        logits_SV = causal.lm_head(hidden_SD).float()
        return torch.nn.functional.cross_entropy(logits_SV, torch.tensor(targets), reduction="sum")

    def losses(step: list[Row]) -> Iterator[torch.Tensor]:
        rows = sorted(step, key=lambda row: -len(row["input_ids"]))
        size = max(1, work.tokens_at_once // len(rows[len(rows) // 2]["input_ids"]))
        for start in range(0, len(rows), size):
            yield loss(rows[start : start + size])

    return losses


def _same(causal: Any, model: Any, work: Work) -> Losses:
    """Lays rows out as our engine does."""
    config = causal.config
    linear = sum(
        module.weight.numel()
        for name, module in causal.model.layers.named_modules()
        if isinstance(module, torch.nn.Linear) and "lora_" not in name
    )
    share = attention_share(width=config.hidden_size, layers=config.num_hidden_layers, linear_parameters=linear)
    limits = BatchLimits(max_rows=work.rows_at_once, max_tokens=work.tokens_at_once, attention_share=share)

    def losses(step: list[Row]) -> Iterator[torch.Tensor]:
        for batch in micro_batches([_example(row) for row in step], limits):
            yield supervised_loss(model, batch).sum

    return losses


def _example(row: Row) -> Example:
    labels_S = np.flatnonzero(row["completion_mask"]).astype(np.int32)
    return Example(id="", tokens_T=np.asarray(row["input_ids"], dtype=np.int32), labels_S=labels_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
