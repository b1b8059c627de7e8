"""Training throughput: our engine's step beside transformers' Trainer on the same rows, both on random weights."""

from __future__ import annotations

import gc
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.shapes import Shape, random_model, write_config
from services.modelkit.adapters import attach_lora
from services.modelkit.layers import decoder_linears
from services.modelkit.quantization import quantize_nf4
from services.trainer.engine.batches import BatchLimits, attention_share
from services.trainer.engine.corpus import Example
from services.trainer.engine.methods import can_share_beginnings, choose_attention
from services.trainer.engine.precision import set_formats
from services.trainer.engine.recompute import apply_recompute, resolve_recompute
from services.trainer.engine.tasks.language import LanguageTask
from services.trainer.engine.verbs import Engine, EngineOptions
from tuneforge.specs.spec import (
    ActivationRecompute,
    ComputeType,
    FullMethod,
    LoraMethod,
    Method,
    Optimizer,
    QloraMethod,
    TrainingSpec,
)

LEARNING_RATE = 1e-4
LORA = LoraMethod(rank=16)
METHODS: dict[str, Method] = {"lora": LORA, "qlora": QloraMethod(lora=LORA), "full": FullMethod()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One throughput row."""

    shape: Shape
    """The model."""
    method: str
    """`lora`, `qlora` or `full`."""
    tokens_at_once: int
    """Tokens of a micro-batch of ours."""
    step_tokens: int
    """Tokens behind one optimiser step, about."""
    steps: int
    """Steps that are timed, after two that warm up."""
    compiles: bool = False
    """Whether the decoder blocks are compiled, each by itself."""

    @property
    def spec(self) -> TrainingSpec:
        """What the memory estimate is asked for; it chooses what is computed again."""
        return TrainingSpec(method=METHODS[self.method], compute=ComputeType.BF16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """What a contestant reached."""

    tokens_s: float
    """Real tokens a second: the median step."""
    peak_bytes: int
    """Most bytes of the device's memory that tensors held; 0 on a CPU."""
    first_loss: float
    """Loss of the first step, before any weight has moved."""
    grad_norm: float
    """Smallest norm of a step's gradient."""
    recompute: ActivationRecompute
    """What was computed again."""


def make_rows(setting: Setting) -> list[list[Example]]:
    """Returns the rows of each step: log-normal lengths (median 120, sigma 0.8, 8 to 512), the last third learned."""
    rng = np.random.default_rng(0)
    vocabulary = setting.shape.config["vocab_size"]
    steps: list[list[Example]] = []
    for _ in range(setting.steps + 2):
        rows: list[Example] = []
        while sum(len(row.tokens_T) for row in rows) < setting.step_tokens:
            length = int(np.clip(rng.lognormal(math.log(120), 0.8), 8, 512))
            rows.append(
                Example(
                    id=str(len(rows)),
                    tokens_T=rng.integers(0, vocabulary, length).astype(np.int32),
                    labels_S=np.arange(length - length // 3, length, dtype=np.int32),
                )
            )
        steps.append(rows)
    return steps


def ours(setting: Setting, steps: Sequence[Sequence[Example]], device: torch.device) -> Throughput:
    """Trains with our engine."""
    with tempfile.TemporaryDirectory() as folder:
        engine, recompute = make_engine(setting, device, Path(folder))
        return _timed(partial(one_step, engine), steps, device, recompute)


def one_step(engine: Engine, rows: Sequence[Example]) -> tuple[float, float]:
    """Makes a step; returns its loss and the norm of its gradient."""
    loss = engine.forward_backward(rows).loss
    return loss, engine.optim_step(LEARNING_RATE)


def make_engine(setting: Setting, device: torch.device, folder: Path) -> tuple[Engine, ActivationRecompute]:
    """Returns our engine over random weights, and what its memory estimate has it compute again.

    Args:
        setting: The row.
        device: Where it computes.
        folder: For its checkpoints.
    """
    recompute = resolve_recompute(
        setting.spec, write_config(setting.shape, folder / "base"), device, setting.tokens_at_once
    )
    compute = ComputeType.BF16
    frozen = setting.method != "full"
    model = random_model(setting.shape, device, torch.bfloat16 if frozen else torch.float32)
    choose_attention(model)
    linear = sum(layer.weight.numel() for _, _, layer in decoder_linears(model))
    base = model
    if frozen:
        model.requires_grad_(False)
        if setting.method == "qlora":
            model = base = quantize_nf4(model, torch.bfloat16, device)
        model = attach_lora(model, LORA, 0)
    set_formats(model, compute)
    apply_recompute(base, recompute)
    if setting.compiles:
        for block in base.base_model.layers:
            block.compile(dynamic=True)
    config = base.config
    share = attention_share(width=config.hidden_size, layers=config.num_hidden_layers, linear_parameters=linear)
    can_share = can_share_beginnings(base, 512)
    limits = BatchLimits(
        max_rows=65536,
        max_tokens=setting.tokens_at_once,
        attention_share=share,
        can_share=can_share,
        rows_apart=can_share,
    )
    options = EngineOptions(
        device=device,
        compute=compute,
        limits=limits,
        optimizer=Optimizer.ADAMW,
        weight_decay=0.0,
        max_grad_norm=1.0,
        end_tokens=frozenset,
        checkpoints=folder / "checkpoints",
        keep_last=1,
        attempt=1,
        beat=lambda: None,
    )
    return Engine(model, LanguageTask(), options), recompute


def peer(setting: Setting, steps: Sequence[Sequence[Example]], device: torch.device) -> Throughput:
    """Trains as transformers' Trainer does: 8 rows filled up, all logits, bfloat16 autocast, gradient checkpointing."""
    frozen = setting.method != "full"
    model = random_model(setting.shape, device, torch.bfloat16 if frozen else torch.float32)
    model.set_attn_implementation("sdpa")
    if frozen:
        model.requires_grad_(False)
        if setting.method == "qlora":
            model = quantize_nf4(model, torch.bfloat16, device)
        model = attach_lora(model, LORA, 0)
    inner: Any = model.get_base_model() if frozen else model
    apply_recompute(inner, ActivationRecompute.FULL)  # what gradient checkpointing is there
    model.train()
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, fused=True)

    def step(rows: Sequence[Example]) -> tuple[float, float]:
        learned = sum(len(row.labels_S) for row in rows)
        total = 0.0
        for start in range(0, len(rows), 8):
            batch = _filled_up(rows[start : start + 8], device)
            with torch.autocast(device.type, dtype=torch.bfloat16):
                loss = model(**batch, num_items_in_batch=learned, use_cache=False).loss
            loss.backward()
            total += loss.item()
        norm = float(torch.nn.utils.clip_grad_norm_(weights, 1.0))
        optimizer.step()
        optimizer.zero_grad()
        return total, norm

    return _timed(step, steps, device, ActivationRecompute.FULL)


def _filled_up(rows: Sequence[Example], device: torch.device) -> dict[str, torch.Tensor]:
    longest = max(len(row.tokens_T) for row in rows)
    input_ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full_like(input_ids, -100)
    mask = torch.zeros_like(input_ids)
    for line, row in enumerate(rows):
        tokens = torch.from_numpy(row.tokens_T.astype(np.int64))
        input_ids[line, : len(tokens)] = tokens
        mask[line, : len(tokens)] = 1
        labels[line, row.labels_S] = tokens[row.labels_S]
    batch = {"input_ids": input_ids, "attention_mask": mask, "labels": labels}
    return {name: tensor.to(device) for name, tensor in batch.items()}


def _timed(
    step: Callable[[Sequence[Example]], tuple[float, float]],
    steps: Sequence[Sequence[Example]],
    device: torch.device,
    recompute: ActivationRecompute,
) -> Throughput:
    is_gpu = device.type == "cuda"
    if is_gpu:
        gc.collect()  # else the model before would count too
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    rates, losses, norms = [], [], []
    for rows in steps:
        began = time.perf_counter()
        loss, norm = step(rows)
        if is_gpu:
            torch.cuda.synchronize(device)
        rates.append(sum(len(row.tokens_T) for row in rows) / (time.perf_counter() - began))
        losses.append(loss)
        norms.append(norm)
    peak = torch.cuda.max_memory_allocated(device) if is_gpu else 0
    return Throughput(
        tokens_s=median(rates[2:]),
        peak_bytes=peak,
        first_loss=losses[0],
        grad_norm=min(norms),
        recompute=recompute,
    )
