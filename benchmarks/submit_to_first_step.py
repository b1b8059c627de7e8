"""From the submit of a job to the moment its first forward pass begins, beside a cold script that trains alike.

One batch of about 256 tokens with LoRA, on SmolLM2-135M and on a Llama of a few thousand weights. Ours: `CreateJob` to
the report that comes right before the first step, base cached at the node, fork server warm. Peer:
`benchmarks.cold_script`, from the start of its process to its forward pass, its files in the page cache. Rounds
alternate. Equal work: the loss of the first step on SmolLM2, which does not depend on how adapters are initialised.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.record import Record
from examples import smollm2
from services.launcher import SERVICES, Suite, free_ports
from tests.support.tiny_model import make_tiny_model
from tuneforge import Client
from tuneforge.events import Resolved, StepMetrics

ROUNDS = 7
BATCH_ROWS = 3
TARGET_RATIO = 8.0
LIMITS_S = {"smollm2": 1.5, "tiny": 0.5}
"""Seconds that we want at most, by base."""
LOSS_TOLERANCE = 2e-2
ROWS = Path("examples/support_routing/train.jsonl")


def run() -> Record:
    """Runs the rounds and returns the record."""
    weights = smollm2.ensure()
    with tempfile.TemporaryDirectory() as folder:
        batch = Path(folder) / "batch.jsonl"
        batch.write_text("\n".join(ROWS.read_text().splitlines()[:BATCH_ROWS]) + "\n")
        ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
        suite = Suite(data=Path(folder) / "data", ports=ports, metrics=False)
        try:
            suite.start()
            registry, scheduler, trainer, inference = map(suite.address, SERVICES)
            with Client(registry=registry, scheduler=scheduler, trainer=trainer, inference=inference) as client:
                client.models.import_folder(weights, "smollm2")
                client.models.import_folder(make_tiny_model(Path(folder) / "tiny"), "tiny")
                client.datasets.upload(batch, "batch")
                compute = _compute(client)  # fetches the base into the node's cache
                _ours(client, "tiny", 0)
                _peer(weights, batch, compute)  # brings its files into the page cache
                ours, tiny, peers = [], [], []
                for number in range(1, ROUNDS + 1):
                    ours.append(_ours(client, "smollm2", number))
                    tiny.append(_ours(client, "tiny", number))
                    peers.append(_peer(weights, batch, compute))
        finally:
            suite.stop()
    return _record(ours, tiny, peers)


def _compute(client: Client) -> str:
    """Makes a first run and returns the number format that it computed in, for the peer to do the same."""
    _ours(client, "smollm2", 0)
    resolved = [event.payload for event in client.jobs.watch("smollm2-0") if isinstance(event.payload, Resolved)]
    return str(resolved[0].spec.compute)


def _ours(client: Client, base: str, number: int) -> dict[str, float]:
    spec = {
        "base": {"model": f"{base}/1"},
        "supervised": {},
        "lora": {"rank": 16},
        "data": {"train": {"dataset": "batch"}},
        "optimization": {"maxSteps": 1, "rowsPerStep": BATCH_ROWS, "learningRate": 1e-3, "warmupRatio": 0},
    }
    began, began_at = time.monotonic(), time.time()
    job = client.jobs.create(spec, job_id=f"{base}-{number}")
    for event in job.watch():
        if isinstance(event.payload, Resolved):
            forward = event.time.timestamp() - began_at  # one machine, one clock
        if isinstance(event.payload, StepMetrics):
            seconds = time.monotonic() - began
            step = event.payload
            found = {
                "forward": forward,
                "seconds": seconds,
                "loss": step.loss,
                "tokens": float(step.tokens),
                "step_s": step.step_seconds,
            }
    job.result(timeout_s=60)
    return found


def _peer(weights: Path, batch: Path, compute: str) -> dict[str, float]:
    began, began_at = time.monotonic(), time.time()
    command = [sys.executable, "-m", "benchmarks.cold_script", str(weights), str(batch), compute]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found | {"seconds": time.monotonic() - began, "forward": found["forward_at"] - began_at}


def _record(ours: list[dict[str, float]], tiny: list[dict[str, float]], peers: list[dict[str, float]]) -> Record:
    def median(rounds: list[dict[str, float]], key: str) -> float:
        return statistics.median(each[key] for each in rounds)

    forward = {"smollm2": median(ours, "forward"), "tiny": median(tiny, "forward")}
    missed = [f"{base} > {limit:g} s" for base, limit in LIMITS_S.items() if forward[base] > limit]
    losses = [each["loss"] for each in ours + peers]
    return Record(
        name="submit_to_first_step",
        what="seconds from the submit of a job (base cached, worker warm) to the beginning of its first forward pass",
        ours=forward["smollm2"],
        peer=median(peers, "forward"),
        peer_name="the same by a plain PEFT script, started cold, its files in the page cache",
        ratio=median(peers, "forward") / forward["smollm2"],
        target=TARGET_RATIO,
        limit=median(peers, "loaded_s"),  # a plain load of the same base, with nothing before it
        unit="s",
        equal_output=max(losses) - min(losses) <= LOSS_TOLERANCE * min(losses),
        command="make bench NAME=submit_to_first_step",
        details={
            "tokens": ours[0]["tokens"],
            "rounds": ROUNDS,
            "ours_worst_s": max(each["forward"] for each in ours),
            "tiny_s": forward["tiny"],
            "targets missed": ", ".join(missed) or "none",
            "first_step_s": median(ours, "seconds"),
            "peer_first_step_s": median(peers, "seconds"),
            "step_s": median(ours, "step_s"),
            "peer_load_and_step_s": median(peers, "loaded_s") + median(peers, "step_s"),
            "loss_ours": ours[0]["loss"],
            "loss_peer": peers[0]["loss"],
        },
    )
