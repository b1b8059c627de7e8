"""From the submit of a job to the moment its first forward pass begins, beside a cold script that trains alike.

One batch of about 256 tokens with LoRA, on SmolLM2-135M and on a Llama of a few thousand weights. Ours: from
`CreateJob` to the beginning of the first step by the worker's clock (its report's time less the step's own; putting
three rows together, which is in it, takes less than a millisecond), base cached at the node, fork server warm. Peer:
`benchmarks.cold_script`, from the start of its process to its forward pass, its files in the page cache. Rounds
alternate, each with both bases on both sides. Processor time is that of all processes: of a script whole, of ours from
the submit until the report of the first step is here. Equal work: the loss of the first step, which does not depend on
how adapters are initialised.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.record import Record
from examples import smollm2
from services.launcher import SERVICES, Suite
from services.stores.ports import free_ports
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """One beginning; in seconds from the submit, or from the start of the script."""

    forward: float
    step: float
    """Until the first optimiser step is over and known of."""
    cpu: float
    """Processor time, the step included."""
    loss: float
    """Of the first step, nats a supervised token."""
    tokens: int
    compute: str
    """Number format of the products."""
    loaded: float = 0.0
    """Of the script: time of loading alone, imports left out."""


def run() -> Record:
    """Runs the rounds and returns the record."""
    with tempfile.TemporaryDirectory() as folder:
        batch = Path(folder) / "batch.jsonl"
        batch.write_text("\n".join(ROWS.read_text().splitlines()[:BATCH_ROWS]) + "\n")
        bases = {"smollm2": smollm2.ensure(), "tiny": make_tiny_model(Path(folder) / "tiny")}
        ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
        suite = Suite(data=Path(folder) / "data", ports=ports, metrics=False)
        ours: dict[str, list[_Start]] = {base: [] for base in bases}
        peer: dict[str, list[_Start]] = {base: [] for base in bases}
        try:
            suite.start()
            registry, scheduler, trainer, inference = map(suite.address, SERVICES)
            with Client(registry=registry, scheduler=scheduler, trainer=trainer, inference=inference) as client:
                client.datasets.upload(batch, "batch")
                for base, weights in bases.items():
                    client.models.import_folder(weights, base)
                for number in range(ROUNDS + 1):
                    for base, weights in bases.items():
                        ours[base].append(_ours(client, base, number))
                        peer[base].append(_peer(weights, batch, ours[base][0].compute))
        finally:
            suite.stop()
    first = slice(1, None)  # the first round fills caches
    return _record(
        {base: each[first] for base, each in ours.items()}, {base: each[first] for base, each in peer.items()}
    )


def _ours(client: Client, base: str, number: int) -> _Start:
    spec = {
        "base": {"model": f"{base}/1"},
        "supervised": {},
        "lora": {"rank": 16},
        "data": {"train": {"dataset": "batch"}},
        "optimization": {"maxSteps": 1, "rowsPerStep": BATCH_ROWS, "learningRate": 1e-3, "warmupRatio": 0},
    }
    cpu, began, began_at = _cpu_of_services(), time.monotonic(), time.time()
    job = client.jobs.create(spec, job_id=f"{base}-{number}")
    for event in job.watch():
        if isinstance(event.payload, Resolved):
            compute = str(event.payload.spec.compute)
        if isinstance(event.payload, StepMetrics):
            step = event.payload
            found = _Start(
                forward=event.time.timestamp() - step.step_seconds - began_at,  # one machine, one clock
                step=time.monotonic() - began,
                cpu=_cpu_of_services() - cpu,
                loss=step.loss,
                tokens=step.tokens,
                compute=compute,
            )
    job.result(timeout_s=60)
    return found


def _cpu_of_services() -> float:
    """Returns the processor seconds of all processes below this one, of those that have ended too."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _peer(weights: Path, batch: Path, compute: str) -> _Start:
    def cpu_s() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    cpu, began, began_at = cpu_s(), time.monotonic(), time.time()
    command = [sys.executable, "-m", "benchmarks.cold_script", str(weights), str(batch), compute]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return _Start(
        forward=found["forward_at"] - began_at,
        step=time.monotonic() - began,
        cpu=cpu_s() - cpu,
        loss=found["loss"],
        tokens=found["tokens"],
        compute=compute,
        loaded=found["loaded_s"],
    )


def _record(ours: Mapping[str, Sequence[_Start]], peer: Mapping[str, Sequence[_Start]]) -> Record:
    def median(rounds: Sequence[_Start], figure: str) -> float:
        return float(statistics.median(getattr(each, figure) for each in rounds))

    seconds = {base: median(rounds, "forward") for base, rounds in ours.items()}
    ratios = {base: median(peer[base], "forward") / seconds[base] for base in ours}
    losses = {base: [each.loss for each in (*ours[base], *peer[base])] for base in ours}
    details: dict[str, float | str] = {"rounds": len(ours["tiny"]), "tokens": ours["smollm2"][0].tokens}
    for base in ours:
        details |= {
            f"{base}: s": seconds[base],
            f"{base}: s at most": LIMITS_S[base],
            f"{base}: worst s": max(each.forward for each in ours[base]),
            f"{base}: peer s": median(peer[base], "forward"),
            f"{base}: ratio": ratios[base],
            f"{base}: first step s": median(ours[base], "step"),
            f"{base}: first step of the peer s": median(peer[base], "step"),
            f"{base}: processor s": median(ours[base], "cpu"),
            f"{base}: processor s of the peer": median(peer[base], "cpu"),
            f"{base}: loss": ours[base][0].loss,
            f"{base}: loss of the peer": peer[base][0].loss,
        }
    missed = [f"{base} > {limit:g} s" for base, limit in LIMITS_S.items() if seconds[base] > limit]
    return Record(
        name="submit_to_first_step",
        what="seconds from the submit of a job (base cached, worker warm) to the beginning of its first forward pass; "
        "the ratio is the lower one of two bases",
        ours=seconds["smollm2"],
        peer=median(peer["smollm2"], "forward"),
        peer_name="the same by a plain PEFT script, started cold, its files in the page cache",
        ratio=min(ratios.values()),
        target=TARGET_RATIO,
        limit=median(peer["smollm2"], "loaded"),  # a plain load of the same base, with nothing before it
        unit="s",
        equal_output=all(max(found) - min(found) <= LOSS_TOLERANCE * min(found) for found in losses.values()),
        command="make bench NAME=submit_to_first_step",
        details=details | {"targets missed": ", ".join(missed) or "none"},
    )
