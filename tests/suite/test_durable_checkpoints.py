"""A job outlives its node: another one goes on from the newest checkpoint in the blob store, with the same bits."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.suite import connect, running_suite
from tests.support.tiny_model import make_tiny_model, write_rows
from tests.support.trainer_node import TrainerProcess
from tuneforge import JobHandle
from tuneforge.events import CheckpointDurable, ResumedFrom, StepMetrics
from tuneforge.job_values import JobState
from tuneforge.specs.spec import (
    BaseModel,
    Checkpointing,
    DataConfig,
    DataSource,
    LoraMethod,
    Optimization,
    Resources,
    TrainingSpec,
)

pytestmark = pytest.mark.heavy

STEPS = 60
QUICK = {"TUNEFORGE_SCHEDULER_HEARTBEAT_S": "0.5", "TUNEFORGE_SCHEDULER_LEASE_TTL_S": "4"}
"""A dead node is noticed soon, one that waits for a processor is not lost."""
SPEC = TrainingSpec(
    base=BaseModel(model="small/1"),
    method=LoraMethod(rank=4, dropout=0.1),
    data=DataConfig(train=DataSource(dataset="animals")),
    optimization=Optimization(max_steps=STEPS, rows_per_step=16, learning_rate=1e-3),
    checkpointing=Checkpointing(every_steps=10),
    seed=11,
)


def curve(job: JobHandle) -> dict[int, tuple[float, float]]:
    """Returns loss and gradient norm by step, the newest attempt's where a step was made twice."""
    steps = [event.payload for event in job.watch() if isinstance(event.payload, StepMetrics)]
    return {step.step: (step.loss, step.grad_norm) for step in steps}


def second_node(folder: Path, registry: str, scheduler: str) -> TrainerProcess:
    """Returns another node of the suite, with a data folder of its own."""
    env = {
        "TUNEFORGE_TRAINER_NODE": "n2",
        "TUNEFORGE_REGISTRY_ADDRESS": registry,
        "TUNEFORGE_SCHEDULER_ADDRESS": scheduler,
        "OMP_NUM_THREADS": "1",
    }
    return TrainerProcess(folder, is_real=True, env=env)


def test_a_job_outlives_its_node(tmp_path: Path) -> None:
    """Node and worker are killed for good: the job goes on elsewhere, from a durable checkpoint, bit for bit."""
    with running_suite(tmp_path / "suite", QUICK) as suite, connect(suite) as client:
        client.models.import_folder(make_tiny_model(tmp_path / "model", layers=2, hidden=128), "small")
        client.datasets.upload(write_rows(tmp_path / "rows.jsonl", 64), "animals")
        job = client.jobs.create(replace(SPEC, resources=Resources(lost_after_s=4)), job_id="moved")
        for event in job.watch():
            if isinstance(event.payload, CheckpointDurable):
                break
        suite.kill("trainer")
        worker = tmp_path / "suite/trainer/jobs/default/moved/attempts/1-0/worker.json"
        os.kill(json.loads(worker.read_text())["pid"], signal.SIGKILL)
        node = second_node(tmp_path / "n2", suite.address("registry"), suite.address("scheduler")).start()
        try:
            moved = curve(job)
            assert job.refresh().state is JobState.SUCCEEDED
            assert next(job.attempts()).node == "nodes/n2"
            resumed = [event.payload for event in job.watch() if isinstance(event.payload, ResumedFrom)]
            assert resumed[-1].step >= 10
            assert resumed[-1].checkpoint == f"projects/default/jobs/moved/checkpoints/{resumed[-1].step}"
            unbroken = client.jobs.create(SPEC, job_id="unbroken")
            assert curve(unbroken) == moved
            assert unbroken.refresh().state is JobState.SUCCEEDED
        finally:
            node.end()
