"""How far SmolLM2-135M, merged with an adapter that was trained on real rows, is from that adapter beside its base.

The engine trains the adapter on the demo's rows and merges it, into the format of the base and into float32; each is
held against the adapter over the held-out rows, in float32, as every run with `output.merge` does. The peer is PEFT's
own `merge_and_unload` into the format of the base, held against the same adapter over the same rows by the same code.
Equal work: the adapter learned something, and all are compared at the same positions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import Record
from examples import smollm2
from services.modelkit.artifacts import LocalArtifact
from services.trainer.engine.corpus import Example
from services.trainer.engine.divergence import Divergence, compare, held_rows, logits_of
from services.trainer.engine.merged import form_of_version, merge
from services.trainer.engine.texts import Texts
from services.trainer.engine.training import Payload, TrainingInputs, preload, train
from tuneforge.manifest import build
from tuneforge.specs.spec import Checkpointing, DataConfig, LoraMethod, Merge, Optimization, TrainingSpec, WeightFormat
from tuneforge.v1 import events_pb2

ROWS = Path("examples/support_routing")
LEAST_AGREEMENT = 0.995
SPEC = TrainingSpec(
    method=LoraMethod(rank=16),
    data=DataConfig(max_tokens=512),
    optimization=Optimization(max_steps=24, rows_per_step=8, learning_rate=1e-3),
    checkpointing=Checkpointing(every_steps=0),
    seed=7,
)


class _Losses:
    """Keeps the losses of a run."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def emit(self, payload: Payload) -> None:
        """Keeps the loss of a step."""
        if isinstance(payload, events_pb2.StepMetrics):
            self.found.append(payload.loss)


def run() -> Record:
    """Trains, merges in each way and returns the record."""
    preload()
    with tempfile.TemporaryDirectory() as name:
        root, losses = Path(name), _Losses()
        base = _artifact(smollm2.ensure())
        task = TrainingInputs(
            spec=SPEC,
            base=[base],
            train=[ROWS / "train.jsonl"],
            validation=[ROWS / "heldout.jsonl"],
            checkpoints=root / "checkpoints",
            attempt=1,
            output=root / "adapter",
            threads=torch.get_num_threads(),
        )
        train(task, losses, lambda: None)
        heldout = Texts(task, SPEC, lambda: None).validation
        assert heldout is not None
        adapter = _artifact(task.output)
        found = {
            form.value: _merged(base, adapter, root / form.value, form, heldout.examples)
            for form in (WeightFormat.STORED, WeightFormat.FP32)
        }
        peer = _peer(base.folder, adapter.folder, heldout.examples)
    ours = found[WeightFormat.STORED.value]
    return Record(
        name="merge_divergence",
        what="SmolLM2-135M merged with an adapter into its own format: positions with the adapter's likeliest token",
        ours=100 * ours.agreement,
        peer=100 * peer.agreement,
        peer_name="PEFT's merge_and_unload in the format of the base",
        ratio=ours.agreement / peer.agreement,
        target=1.0,
        limit=100.0,
        unit="%",
        equal_output=losses.found[-1] < losses.found[0] and ours.positions == peer.positions,
        command="make bench NAME=merge_divergence",
        details={
            "positions": ours.positions,
            "rows": ours.rows,
            "first_loss": losses.found[0],
            "last_loss": losses.found[-1],
            "published": "yes" if ours.agreement >= LEAST_AGREEMENT else "no: the adapter alone",
            **{f"{form} {name}": value for form, each in found.items() for name, value in each.figures().items()},
            **{f"peer {name}": value for name, value in peer.figures().items()},
        },
    )


def _artifact(folder: Path) -> LocalArtifact:
    manifest = build(folder)
    return LocalArtifact(folder=folder, manifest=manifest, kind="model", ref_version="", digest=manifest.digest)


def _merged(
    base: LocalArtifact, adapter: LocalArtifact, folder: Path, form: WeightFormat, examples: Sequence[Example]
) -> Divergence:
    below = form_of_version([base], adapter)
    return merge([base, adapter], folder, below, Merge(format=form), examples, torch.device("cpu")).divergence


def _peer(base: Path, adapter: Path, examples: Sequence[Example]) -> Divergence:
    from peft import PeftModel

    beside = PeftModel.from_pretrained(_load(base, torch.float32), adapter).eval()
    rows = held_rows(examples, beside.config.vocab_size)
    adapter_logits = list(logits_of(beside, rows))
    del beside
    whole = PeftModel.from_pretrained(_load(base, torch.bfloat16), adapter).merge_and_unload()
    return compare(adapter_logits, whole.float().eval(), rows)


def _load(base: Path, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base, dtype=dtype, attn_implementation="eager")
