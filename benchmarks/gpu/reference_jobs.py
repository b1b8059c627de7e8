"""Whole jobs as another service submits them: 100, 1,000 and 10,000 examples of 512 tokens, three epochs, 7B shape.

    python -m benchmarks.gpu.reference_jobs [--tiny] [--longest N]

From the submit to the published version, through all four services, base cached at the node and worker warm. The
longest one is computed from the steps of the one before it unless `--longest 10000` is given. Beside each: the time
that another service claims for it on its own accelerator.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.gpu.shapes import QWEN_7B, random_model, tiny
from benchmarks.record import Record
from services.launcher import SERVICES, Suite
from services.modelkit.adapters import save_model
from services.modelkit.loading import TOKENIZER_FILES
from services.stores.ports import free_ports
from tests.support.tiny_model import make_tiny_model
from tuneforge import Client
from tuneforge.events import StepMetrics

EXAMPLES = (100, 1_000, 10_000)
CLAIMED_S = {100: 300.0, 1_000: 1_800.0, 10_000: 18_000.0}
"""Shortest time that the other service claims."""
LIMIT_S = {100: 5.7, 1_000: 57.0, 10_000: 573.0}
"""Training alone at the rate that an H200 could reach."""
TARGET_S = {100: 15.0, 1_000: 100.0, 10_000: 990.0}
TOKENS, EPOCHS, ROWS_PER_STEP = 512, 3, 32


def main(arguments: list[str]) -> int:
    """Runs the jobs; returns 1 when one took longer than we want."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.reference_jobs", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a small model on a CPU, 20 and 40 examples")
    parser.add_argument("--longest", type=int, default=1_000, help="most examples that are run; the rest is computed")
    options = parser.parse_args(arguments)
    if not options.tiny and not torch.cuda.is_available():
        print("no GPU here: these jobs are unproven; --tiny shows that they run", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = _make_base(folder / "base", is_tiny=options.tiny)
        counts = (20, 40) if options.tiny else tuple(n for n in EXAMPLES if n <= options.longest)
        took = _run_jobs(folder, base, counts)
    for count, (wall, train) in took.items():
        print(f"{count} examples: {wall:.1f} s from submit to version, {train:.1f} s of it in steps", flush=True)
    if options.tiny:
        return 0
    records = [_record(count, took) for count in EXAMPLES]
    for record in records:
        print(f"{record.name}: {record.ours:.1f} s, limit {record.limit:.1f} s, {record.ratio:.0f}x; {record.write()}")
    return 0 if all(record.met for record in records) else 1


def _make_base(folder: Path, *, is_tiny: bool) -> Path:
    """Writes a whole model with random weights, and a small tokenizer."""
    make_tiny_model(folder / "small")
    shape = tiny(QWEN_7B) if is_tiny else QWEN_7B
    device = torch.device("cpu" if is_tiny else "cuda:0")
    model = random_model(shape, device, torch.bfloat16)
    save_model(model, folder / "whole", [folder / "small" / name for name in TOKENIZER_FILES])
    del model
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return folder / "whole"


def _rows(path: Path, count: int) -> Path:
    with path.open("w") as file:
        for number in range(count):
            text = f"{number} " * TOKENS  # more tokens than a row may have: each is cut to the same length
            file.write(json.dumps({"text": text}) + "\n")
    return path


def _run_jobs(folder: Path, base: Path, counts: tuple[int, ...]) -> dict[int, tuple[float, float]]:
    """Returns, for each number of examples, the seconds from submit to version, and those of its steps."""
    ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
    suite = Suite(data=folder / "data", ports=ports, metrics=False)
    took: dict[int, tuple[float, float]] = {}
    try:
        suite.start()
        registry, scheduler, trainer, inference = map(suite.address, SERVICES)
        with Client(registry=registry, scheduler=scheduler, trainer=trainer, inference=inference) as client:
            client.models.import_folder(base, "base")
            for count in counts:
                client.datasets.upload(_rows(folder / f"rows-{count}.jsonl", count), f"rows-{count}")
            _job(client, "warm", counts[0], {"maxSteps": 1})
            for count in counts:
                took[count] = _job(client, f"job-{count}", count, {"epochs": EPOCHS})
    finally:
        suite.stop()
    return took


def _job(client: Client, job_id: str, count: int, length: dict[str, int]) -> tuple[float, float]:
    spec = {
        "base": {"model": "base/1"},
        "continuedPretraining": {},
        "lora": {"rank": 16},
        "data": {"train": {"dataset": f"rows-{count}"}, "maxTokens": TOKENS, "overlong": "OVERLONG_POLICY_TRUNCATE"},
        "optimization": {"rowsPerStep": ROWS_PER_STEP, **length},
        "checkpointing": {"everySteps": 0},
    }
    began = time.monotonic()
    job = client.jobs.create(spec, job_id=job_id)
    steps = [event.payload.step_seconds for event in job.watch() if isinstance(event.payload, StepMetrics)]
    if not job.result(timeout_s=60).version:
        raise RuntimeError(f"{job_id} published nothing")
    return time.monotonic() - began, sum(steps)


def _record(count: int, took: dict[int, tuple[float, float]]) -> Record:
    is_run = count in took
    if is_run:
        wall = took[count][0]
    else:
        longest = max(took)
        before, train = took[longest]
        wall = before - train + train * count / longest
    return Record(
        name=f"gpu_reference_job_{count}",
        what=f"seconds from submit to version: {count} examples of {TOKENS} tokens, {EPOCHS} epochs, LoRA, 7B shape",
        ours=wall,
        peer=CLAIMED_S[count],
        peer_name="shortest time that the other service claims, on its own accelerator",
        ratio=CLAIMED_S[count] / wall,
        target=CLAIMED_S[count] / TARGET_S[count],
        limit=LIMIT_S[count],
        unit="s",
        equal_output=True,
        command="python -m benchmarks.gpu.reference_jobs",
        details={"run": "yes" if is_run else f"computed from {max(took)} examples"},
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
