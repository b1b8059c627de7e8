"""From the submit of a job to its first finished optimiser step, beside a cold script that does the same step.

One batch of about 256 tokens on SmolLM2-135M with LoRA. Ours: `CreateJob` to the arrival of the step event at a client,
base cached at the node, fork server warm. Peer: `benchmarks.cold_script`, from the start of the process to its line.
Rounds alternate. Equal work: the loss of the first step, which does not depend on how adapters are initialised.
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
from tuneforge import Client
from tuneforge.events import Resolved, StepMetrics

ROUNDS = 5
BATCH_ROWS = 3
TARGET_RATIO = 3.0
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
                client.datasets.upload(batch, "batch")
                compute = _compute(client)  # fetches the base into the node's cache
                ours, peers = [], []
                for number in range(1, ROUNDS + 1):
                    ours.append(_ours(client, number))
                    peers.append(_peer(weights, batch, compute))
        finally:
            suite.stop()
    return _record(ours, peers)


def _compute(client: Client) -> str:
    """Makes a first run and returns the number format that it computed in, for the peer to do the same."""
    _ours(client, 0)
    resolved = [event.payload for event in client.jobs.watch("round-0") if isinstance(event.payload, Resolved)]
    return str(resolved[0].spec.compute)


def _ours(client: Client, number: int) -> dict[str, float]:
    spec = {
        "base": {"model": "smollm2/1"},
        "supervised": {},
        "lora": {"rank": 16},
        "data": {"train": {"dataset": "batch"}},
        "optimization": {"maxSteps": 1, "rowsPerStep": BATCH_ROWS, "learningRate": 1e-3, "warmupRatio": 0},
    }
    began = time.monotonic()
    job = client.jobs.create(spec, job_id=f"round-{number}")
    for event in job.watch():
        if isinstance(event.payload, StepMetrics):
            seconds = time.monotonic() - began
            step = event.payload
            found = {"seconds": seconds, "loss": step.loss, "tokens": float(step.tokens), "step_s": step.step_seconds}
    job.result(timeout_s=60)
    return found


def _peer(weights: Path, batch: Path, compute: str) -> dict[str, float]:
    began = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.cold_script", str(weights), str(batch), compute]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found | {"seconds": time.monotonic() - began}


def _record(ours: list[dict[str, float]], peers: list[dict[str, float]]) -> Record:
    def median(rounds: list[dict[str, float]], key: str) -> float:
        return statistics.median(each[key] for each in rounds)

    losses = [each["loss"] for each in ours + peers]
    return Record(
        name="submit_to_first_step",
        what="seconds from the submit of a job (base cached, worker warm) to its first finished optimiser step",
        ours=median(ours, "seconds"),
        peer=median(peers, "seconds"),
        peer_name="the same step by a plain PEFT script, started cold",
        ratio=median(peers, "seconds") / median(ours, "seconds"),
        target=TARGET_RATIO,
        limit=min(each["step_s"] for each in ours),  # the step itself, with nothing before it
        unit="s",
        equal_output=max(losses) - min(losses) <= LOSS_TOLERANCE * min(losses),
        command="make bench NAME=submit_to_first_step",
        details={
            "tokens": ours[0]["tokens"],
            "rounds": ROUNDS,
            "ours_worst_s": max(each["seconds"] for each in ours),
            "peer_load_and_step_s": median(peers, "loaded_s") + median(peers, "step_s"),
            "loss_ours": ours[0]["loss"],
            "loss_peer": peers[0]["loss"],
        },
    )
