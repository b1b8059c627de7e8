"""Two schedulers, a real node and a client that know both: the leader is killed under a running job."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from services.launcher import Suite
from services.stores.ports import free_ports
from tests.support.postgres import TestDatabases
from tests.support.tiny_model import make_tiny_model, write_rows
from tuneforge import Client
from tuneforge.events import StepMetrics
from tuneforge.job_values import JobState
from tuneforge.specs.spec import BaseModel, DataConfig, DataSource, LoraMethod, Optimization, TrainingSpec

pytestmark = [pytest.mark.heavy, pytest.mark.postgres]

STEPS = 30


def test_a_job_outlives_its_scheduler(tmp_path: Path, postgres_databases: TestDatabases) -> None:
    """The one that stood by goes on with the attempt that runs; the node comes to it, and a watcher misses nothing."""
    registry, trainer, first, second, nobody = free_ports(5)
    addresses = f"127.0.0.1:{second},127.0.0.1:{first}"
    env = {
        "TUNEFORGE_SCHEDULER_DATABASE_URL": postgres_databases.of("scheduler", Path("shared")).url.render_as_string(
            hide_password=False
        ),
        "TUNEFORGE_SCHEDULER_ADDRESS": addresses,
        "TUNEFORGE_TRAINER_CPU_MILLIS": "1000",
        "OMP_NUM_THREADS": "1",
    }
    ports = {"registry": registry, "trainer": trainer, "inference": nobody}
    leader = Suite(tmp_path / "leader", {**ports, "scheduler": first}, metrics=False, extra_env=env)
    suite = Suite(tmp_path / "suite", {**ports, "scheduler": second}, metrics=False, extra_env=env)
    try:
        leader.start("scheduler")
        suite.start("registry", "scheduler", "trainer")
        with Client(registry=suite.address("registry"), scheduler=addresses) as client:
            client.models.import_folder(make_tiny_model(tmp_path / "model", layers=2, hidden=128), "small")
            client.datasets.upload(write_rows(tmp_path / "rows.jsonl", 64), "animals")
            spec = TrainingSpec(
                base=BaseModel(model="small/1"),
                method=LoraMethod(rank=4),
                data=DataConfig(train=DataSource(dataset="animals")),
                optimization=Optimization(max_steps=STEPS, rows_per_step=16, learning_rate=1e-3),
            )
            job = client.jobs.create(spec, job_id="a")
            numbers, steps = [], []
            for event in job.watch():
                numbers.append(event.job_seq)
                if isinstance(event.payload, StepMetrics):
                    steps.append(event.payload.step)
                    if steps == [3]:
                        leader.kill("scheduler")
            assert numbers == list(range(1, len(numbers) + 1))
            assert steps == list(range(1, STEPS + 1))
            assert job.refresh().state is JobState.SUCCEEDED
            assert len(list(job.attempts())) == 1
            short = replace(spec, optimization=Optimization(max_steps=1, rows_per_step=1, learning_rate=1e-3))
            again = client.jobs.create(short, job_id="b")
            assert again.result().state is JobState.SUCCEEDED
    finally:
        suite.stop()
        leader.stop()
