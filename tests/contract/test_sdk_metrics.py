"""`tuneforge metrics serve`: a port of this machine that shows one job, or a run that has ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from services.stores.ports import free_ports
from tests.support import fake_scheduler
from tests.support.exposition import Page
from tests.support.fake_scheduler import FakeScheduler
from tests.support.trainer_node import eventually
from tuneforge.v1 import events_pb2

INFO = {
    "model_id": "owner/base",
    "output_dir": "runs/out",
    "method": "full",
    "training_config": {"epochs": 3.0},
    "results": {"train_loss": 0.75, "train_runtime": 120.0, "train_samples_per_second": 4.5},
}


@contextmanager
def serving(*arguments: str, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """Runs the command on a free port until the block ends; yields its address."""
    command = [sys.executable, "-m", "tuneforge.cli", "metrics", "serve", "--port", "0", *arguments]
    with subprocess.Popen(command, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().split()[3].rstrip(";")
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        finally:
            process.kill()


def test_a_job_is_followed(tmp_path: Path) -> None:
    """Its steps come from the scheduler, and it is shown after its end."""
    fake = FakeScheduler()
    fake.job.spec.full.SetInParent()
    for number in range(1, 31):
        step = events_pb2.StepMetrics(step=number, total_steps=30, epoch=number / 10, loss=3 / number)
        fake.events.append(events_pb2.Event(job_seq=number, attempt=1, seq=number, step=step))
    fake.events.append(events_pb2.Event(job_seq=31, state=events_pb2.StateChange(to="SUCCEEDED")))
    with fake_scheduler.serve(fake) as scheduler:
        arguments = ("--job-name", "my-job", "--model-id", "owner/base")
        with serving(*arguments, env={"TUNEFORGE_SCHEDULER_ADDRESS": scheduler}) as address:
            eventually(lambda: Page.fetch(address).value("finetuning_job_status") == 2, "the end")
            page = Page.fetch(address)
    assert page.labels("finetuning_job_status") == [{"job_name": "my-job", "model_id": "owner/base", "method": "full"}]
    assert page.value("finetuning_training_step") == 30
    assert page.value("finetuning_train_loss", epoch="3") == pytest.approx(0.1)


def test_a_run_that_has_ended_is_shown_from_its_file(tmp_path: Path) -> None:
    """Pending until the file is there, then what it says; flags name what it does not."""
    path = tmp_path / "training_info.json"
    with serving("--training-info", str(path), "--job-name", "mine", "--method", "lora") as address:
        before = Page.fetch(address)
        path.write_text(json.dumps(INFO))
        after = Page.fetch(address)
    assert (before.value("finetuning_job_status"), after.value("finetuning_job_status")) == (0, 2)
    assert after.labels("finetuning_job_status") == [{"job_name": "mine", "model_id": "owner/base", "method": "lora"}]
    assert after.value("finetuning_train_loss", epoch="3") == 0.75
    assert after.value("finetuning_training_progress") == 100.0
    assert after.value("finetuning_samples_per_second") == 4.5
    assert after.value("finetuning_job_duration_seconds_sum") == pytest.approx(120.0)


@contextmanager
def prometheus(program: str, target: str, folder: Path) -> Iterator[str]:
    """Runs a Prometheus server that scrapes a target each second; yields its own address."""
    config = {"scrape_configs": [{"job_name": "t", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}]}
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    address = f"127.0.0.1:{free_ports(1)[0]}"
    arguments = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    with subprocess.Popen(
        [program, *arguments, f"--web.listen-address={address}"], stderr=subprocess.DEVNULL
    ) as server:
        try:
            yield f"http://{address}"
        finally:
            server.terminate()
            server.wait(60)


def test_a_real_prometheus_scrapes_it(tmp_path: Path) -> None:
    """Where the server is installed it answers a query with the figure; elsewhere its parser stands in for it."""
    path = tmp_path / "training_info.json"
    path.write_text(json.dumps(INFO))
    with serving("--training-info", str(path)) as address:
        program = shutil.which("prometheus")
        if program is None:
            assert Page.fetch(address).value("finetuning_train_loss", job_name="out") == 0.75
            return
        target = address.removeprefix("http://").removesuffix("/metrics")
        with prometheus(program, target, tmp_path) as server:
            query = f"{server}/api/v1/query?query=finetuning_train_loss"

            def found() -> list[Any]:
                try:
                    with urllib.request.urlopen(query, timeout=10) as answer:
                        result: list[Any] = json.load(answer)["data"]["result"]
                        return result
                except OSError:  # it is not up yet
                    return []

            (series,) = eventually(found, "a scrape")
    assert series["value"][1] == "0.75"
    assert series["metric"].items() >= {"job_name": "out", "model_id": "owner/base", "epoch": "3"}.items()


def test_wrong_usage_is_told() -> None:
    """A port in use and nothing to show: exit code 2 and a sentence."""
    command = [sys.executable, "-m", "tuneforge.cli", "metrics", "serve"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        arguments = ["--port", str(port), "--training-info", "x.json"]
        busy = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert busy.returncode == 2
    assert f"--port: port {port} is in use, choose another" in busy.stderr
    nothing = subprocess.run(command, capture_output=True, text=True, check=False)
    assert nothing.returncode == 2
    assert "--job-name" in nothing.stderr
