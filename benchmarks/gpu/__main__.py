"""`python -m benchmarks.gpu [ROW ...] [--tiny]`: the rows for a machine with a GPU, each beside its peer.

Prints our figure, that of the peer, the ratio, what the device could reach and all else that was found, and writes a
record of each. `--tiny` runs small models of the same families on a CPU, to see that everything works, and writes
nothing.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import torch

from benchmarks.gpu import checkpoint_stall, memory
from benchmarks.gpu.shapes import QWEN_0P5B, QWEN_7B, SMOLLM2_135M, tiny
from benchmarks.gpu.throughput import Setting, make_rows, ours, peer
from benchmarks.record import Record

SETTINGS = {
    "gpu_lora_7b": (
        Setting(shape=QWEN_7B, method="lora", tokens_at_once=16384, step_tokens=32768, steps=8),
        3.0,
    ),
    "gpu_lora_0p5b": (
        Setting(shape=QWEN_0P5B, method="lora", tokens_at_once=32768, step_tokens=65536, steps=10, compiles=True),
        4.0,
    ),
    "gpu_lora_135m": (
        Setting(shape=SMOLLM2_135M, method="lora", tokens_at_once=32768, step_tokens=65536, steps=10, compiles=True),
        5.0,
    ),
    "gpu_qlora_7b": (
        Setting(shape=QWEN_7B, method="qlora", tokens_at_once=8192, step_tokens=16384, steps=6),
        1.6,
    ),
    "gpu_full_0p5b": (
        Setting(shape=QWEN_0P5B, method="full", tokens_at_once=16384, step_tokens=65536, steps=8, compiles=True),
        1.3,
    ),
}
"""Each row of throughput with the ratio to its peer that we want."""
OTHERS = ("gpu_checkpoint_stall", "gpu_memory")
LOSS_TOLERANCE = 2e-2
QLORA_SHARE = 0.93
"""Of our own LoRA's rate at the same tokens, at least."""


def main(arguments: list[str]) -> int:
    """Runs the named rows, all without a name; returns 1 when one missed its target or the losses differ."""
    names = (*SETTINGS, *OTHERS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(names))
    parser.add_argument("--tiny", action="store_true", help="small models on a CPU; nothing is written")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.rows if name not in names]
    if unknown:
        parser.error(f"no row is called {', '.join(unknown)}: use {', '.join(names)}")
    if not options.tiny and not torch.cuda.is_available():
        print("no GPU here: these rows are unproven; --tiny shows that they run", file=sys.stderr)
        return 2
    if options.tiny:
        torch.set_num_threads(1)  # two threads on busy cores wait for each other
    is_met = True
    for name in options.rows or names:
        record = make(name, is_tiny=options.tiny)
        print(
            f"{name}: {record.ours:,.4g} {record.unit}, peer {record.peer:,.4g}, {record.ratio:.2f}x "
            f"(target {record.target:g}x), limit {record.limit:,.4g}, equal work: "
            f"{'yes' if record.equal_output else 'NO'}; {dict(record.details)}",
            flush=True,
        )
        if options.tiny:
            is_met &= record.equal_output or name == "gpu_memory"  # a CPU has no allocator that counts
        else:
            record.write()
            is_met &= record.met
    return 0 if is_met else 1


def make(name: str, *, is_tiny: bool) -> Record:
    """Makes one row.

    Args:
        name: Of `SETTINGS` or `OTHERS`.
        is_tiny: Whether small models run on a CPU.
    """
    device = torch.device("cpu" if is_tiny else "cuda:0")

    def sized(setting: Setting) -> Setting:
        if not is_tiny:
            return setting
        small = replace(setting, shape=tiny(setting.shape), tokens_at_once=1024, step_tokens=1500, steps=2)
        return replace(small, compiles=False)

    if name == "gpu_checkpoint_stall":
        return checkpoint_stall.run(sized(SETTINGS["gpu_lora_7b"][0]), device)
    if name == "gpu_memory":
        cases = list(memory.settings())
        return memory.run([sized(case) for case in (cases[::9] if is_tiny else cases)], device)
    setting, target = SETTINGS[name]
    return _run(name, sized(setting), target, device)


def _run(name: str, setting: Setting, target: float, device: torch.device) -> Record:
    steps = make_rows(setting)
    mine = ours(setting, steps, device)
    theirs = peer(setting, steps, device)
    rows = [row for step in steps for row in step]
    tokens = sum(len(row.tokens_T) for row in rows)
    learned = sum(len(row.labels_S) for row in rows) / tokens
    difference = abs(mine.first_loss - theirs.first_loss) / theirs.first_loss
    limit = setting.shape.limit(setting.method, tokens / len(rows), learned)
    beside: dict[str, float] = {}
    if setting.method == "qlora":
        whole = ours(replace(setting, method="lora"), steps, device)
        beside = {"share of our LoRA": mine.tokens_s / whole.tokens_s, "share of our LoRA, wanted": QLORA_SHARE}
    return Record(
        name=name,
        what=f"{setting.method} on random weights of the shape of {setting.shape.name}: real tokens a second",
        ours=mine.tokens_s,
        peer=theirs.tokens_s,
        peer_name="8 rows filled up, all logits, gradient checkpointing: Trainer's defaults",
        ratio=mine.tokens_s / theirs.tokens_s,
        target=target,
        limit=limit,
        unit="tokens/s",
        equal_output=difference <= LOSS_TOLERANCE and min(mine.grad_norm, theirs.grad_norm) > 0,
        command=f"python -m benchmarks.gpu {name}",
        details={
            "peak_gb": f"{mine.peak_bytes / 1e9:.1f}",
            "peer: peak_gb": f"{theirs.peak_bytes / 1e9:.1f}",
            "recompute": mine.recompute.value,
            "compiled": "yes" if setting.compiles else "no",
            "difference of the first losses": difference,
            "share of the limit": mine.tokens_s / limit,
            **beside,
        },
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
