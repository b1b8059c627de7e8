"""Full fine-tuning of SmolLM2-135M over short chat rows, beside transformers' Trainer and a bare loop.

As `sft_lora_cpu`, with every weight trained. The peer fills rows up to the longest and computes the head everywhere.
Ours begins each round with a model and an optimiser of its own, whose memory the first step touches for the first time;
the others go on in the memory of the round before. So the ratio after the first step stands beside that of all steps.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.contestants import relative_difference
from benchmarks.record import Record
from benchmarks.sft_lora_cpu import BF16_FLOPS_2_CORES, HEAD, LINEAR, TOLERANCE, details, learned_share, measure, speed

ROUNDS = 7
TARGET_RATIO = 1.3
PEER = "TRL trainer"


def run() -> Record:
    """Runs the rounds and returns the record."""
    with tempfile.TemporaryDirectory() as name:
        work, found = measure(Path(name) / "bf16", compute="bf16", rounds=ROUNDS, is_full=True, trl=("trainer",))
    speeds = {who: speed(work, rounds) for who, rounds in found.items()}
    ratios = {who: speeds["ours"] / speeds[who] for who in found if who != "ours"}
    difference = max(relative_difference(each[0].losses, found["ours"][0].losses) for each in found.values())
    norms = [norm for rounds in found.values() for each in rounds for norm in each.grad_norms]
    return Record(
        name="full_cpu",
        what="full fine-tuning of SmolLM2-135M with products in bfloat16: tokens a processor second",
        ours=speeds["ours"],
        peer=speeds[PEER],
        peer_name="transformers' Trainer, fused AdamW, bfloat16 autocast, no checkpointing",
        ratio=ratios[PEER],
        target=TARGET_RATIO,
        limit=BF16_FLOPS_2_CORES / 2 / (6 * LINEAR + 6 * HEAD * learned_share(work)),
        unit="tokens/cpu-s",
        equal_output=min(norms) > 0 and difference <= TOLERANCE["bf16"],
        command="make bench NAME=full_cpu",
        details=details(work, found, ratios, {"bf16": difference}),
    )
