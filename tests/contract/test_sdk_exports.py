"""A job in TensorBoard and MLflow: exported by the command, read back by the tools themselves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support import fake_scheduler
from tests.support.fake_scheduler import JOB, FakeScheduler
from tuneforge import Client
from tuneforge.charts import RIGHT, WIDTH
from tuneforge.events import event_from_proto
from tuneforge.exports.history import History, Point
from tuneforge.exports.mlflow import MlflowExport
from tuneforge.exports.page import MOST_POINTS, PageExport
from tuneforge.exports.run import Export
from tuneforge.exports.tensorboard import TensorBoardExport
from tuneforge.job_values import job_from_proto
from tuneforge.report_page import PREAMBLE
from tuneforge.v1 import events_pb2 as pb
from tuneforge.v1 import jobs_pb2

BEGIN_S = 1_770_000_000


def log_of_two_attempts() -> list[pb.Event]:
    """Returns events: six steps, a resume after the fourth, eight steps in all, two of them evaluated."""
    events: list[pb.Event] = []

    def put(attempt: int, **payload: Any) -> None:
        event = pb.Event(job=JOB, job_seq=len(events) + 1, attempt=attempt, seq=len(events) + 1, **payload)
        event.time.FromSeconds(BEGIN_S + len(events))
        events.append(event)

    put(0, state=pb.StateChange(to="RUNNING"))
    for step in range(1, 7):
        put(1, step=pb.StepMetrics(step=step, total_steps=8, loss=10.0 + step, learning_rate=1e-3))
    put(1, evaluation=pb.EvaluationMetrics(step=6, loss=9.0))
    put(2, resumed_from=pb.ResumedFrom(step=4, attempt=1))
    for step in range(5, 9):
        put(2, step=pb.StepMetrics(step=step, total_steps=8, loss=20.0 + step, learning_rate=1e-3))
    put(2, evaluation=pb.EvaluationMetrics(step=8, loss=1.5))
    put(2, device=pb.DeviceMetrics(cpu_percent=150, memory_bytes=7, devices=[pb.DeviceSample(index=1, power_watts=9)]))
    put(2, device=pb.DeviceMetrics(cpu_percent=50, memory_bytes=8), node_rank=1)
    return events


LOSSES = {1: 11.0, 2: 12.0, 3: 13.0, 4: 14.0, 5: 25.0, 6: 26.0, 7: 27.0, 8: 28.0}
"""One point a step, that of the newest attempt."""


@pytest.fixture
def scheduler() -> FakeScheduler:
    """A scheduler with a job of two attempts that has succeeded."""
    fake = FakeScheduler(events=log_of_two_attempts())
    fake.job.state = jobs_pb2.JOB_STATE_SUCCEEDED
    fake.job.create_time.FromSeconds(BEGIN_S)
    fake.job.end_time.FromSeconds(BEGIN_S + 60)
    fake.job.spec.optimization.learning_rate = 1e-3
    fake.job.version.version = "projects/default/models/router/versions/3"
    return fake


@pytest.fixture
def environment(scheduler: FakeScheduler) -> Iterator[Mapping[str, str]]:
    """The environment of a command that finds the fake."""
    with fake_scheduler.serve(scheduler) as address:
        yield {**os.environ, "TUNEFORGE_SCHEDULER_ADDRESS": address, "MLFLOW_DISABLE_TELEMETRY": "true"}


def export(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `tuneforge jobs export`."""
    command = [sys.executable, "-m", "tuneforge.cli", "jobs", "export", "my-job", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Reads a log folder as TensorBoard does: tag -> step -> value; fails when a step has two points."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder)).Reload()
    points = {tag: [(each.step, each.value) for each in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    assert all(len(dict(series)) == len(series) for series in points.values()), points
    return {tag: dict(series) for tag, series in points.items()}


def export_again(environment: Mapping[str, str], target: Export) -> str:
    """Exports the same job from Python, following it to its end."""
    with Client(scheduler=environment["TUNEFORGE_SCHEDULER_ADDRESS"]) as client:
        return client.jobs.get("my-job").export(target, follow=True)


def test_tensorboard_reads_one_point_a_step(environment: Mapping[str, str], tmp_path: Path) -> None:
    """The curve is that of the newest attempt; a second export leaves the same file, byte for byte."""
    done = export(environment, "--to", "tensorboard", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "my-job").iterdir()
    assert str(file) in done.stdout
    before = file.read_bytes()
    with TensorBoardExport(tmp_path) as target:
        assert export_again(environment, target) == str(file)
    assert list((tmp_path / "my-job").iterdir()) == [file]
    assert file.read_bytes() == before
    found = scalars(tmp_path / "my-job")
    assert found["train/loss"] == LOSSES
    assert found["eval/loss"] == {8: 1.5}
    assert found["system/cpu_percent"] == {8: 150.0}
    assert found["system/node1_cpu_percent"] == {8: 50.0}
    assert found["system/gpu1_power_watts"] == {8: 9.0}


def test_a_followed_job_rewinds_what_was_written(scheduler: FakeScheduler, tmp_path: Path) -> None:
    """What a later attempt makes void while it is followed is dropped by TensorBoard itself."""
    history = History()
    with TensorBoardExport(tmp_path) as target:
        target.begin(job_from_proto(scheduler.job), [])
        for event in scheduler.events:
            target.add(history.take(event_from_proto(event)))
    found = scalars(tmp_path / "my-job")
    assert found["train/loss"] == LOSSES
    assert found["eval/loss"] == {8: 1.5}


@pytest.mark.filterwarnings("ignore")  # of MLflow's own code
def test_mlflow_reads_the_run_once(environment: Mapping[str, str], tmp_path: Path) -> None:
    """Metrics, parameters, result and end are there; a second export adds no point and no run."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    done = export(environment, "--to", "mlflow", "--tracking-uri", uri, "--experiment", "mine")
    assert done.returncode == 0, done.stderr
    with MlflowExport(uri, "mine") as target:
        assert export_again(environment, target) in done.stdout
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = client.get_experiment_by_name("mine")
    assert found is not None
    (run,) = client.search_runs([found.experiment_id])
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert {each.step: each.value for each in history} == LOSSES
    assert len(history) == len(LOSSES)
    assert run.data.params["optimization.learning_rate"] == "0.001"
    assert run.data.tags["tuneforge.version"] == "projects/default/models/router/versions/3"
    assert (run.info.run_name, run.info.status) == ("my-job", "FINISHED")
    assert (run.info.start_time, run.info.end_time) == (BEGIN_S * 1000, (BEGIN_S + 60) * 1000)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--to", "tensorboard"], 2, "--out"),
        (["--to", "mlflow"], 2, "--tracking-uri"),
        (["--to", "wandb"], 2, "tensorboard"),
    ],
)
def test_wrong_usage_is_told(environment: Mapping[str, str], arguments: list[str], code: int, words: str) -> None:
    """With the flag that is missing."""
    done = export(environment, *arguments)
    assert done.returncode == code
    assert words in done.stderr


def test_a_missing_package_is_named(environment: Mapping[str, str], tmp_path: Path) -> None:
    """With how to install it; a module that cannot be imported stands in for one that is not there."""
    (tmp_path / "tensorboardX").mkdir()
    (tmp_path / "tensorboardX/__init__.py").write_text("raise ModuleNotFoundError(name='tensorboardX')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = export({**environment, "PYTHONPATH": path}, "--to", "tensorboard", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "pip install 'tuneforge[tensorboard]'" in done.stderr


def test_a_page_shows_speeds_and_memory_too(environment: Mapping[str, str], tmp_path: Path) -> None:
    """One corner a step of the newest attempt in each plot; what a later attempt made void is not drawn."""
    path = tmp_path / "pages" / "job.html"
    done = export(environment, "--to", "html", "--out", str(path))
    assert done.returncode == 0, done.stderr
    page = path.read_text()
    assert page.startswith(PREAMBLE)
    drawn = dict(re.findall(r'aria-label="([^"]+)">.*?<polyline points="([^"]+)"', page))
    corners = {title: len(points.split()) for title, points in drawn.items()}
    assert corners["Loss of each step"] == corners["Tokens a second"] == len(LOSSES)
    assert "projects/default/models/router/versions/3" in page
    assert "SUCCEEDED" in page
    assert [each.name for each in path.parent.iterdir()] == ["job.html"]
    refused = export(environment, "--to", "html")
    assert refused.returncode == 2
    assert "--out FILE" in refused.stderr


def test_a_page_draws_few_points_of_a_long_run(tmp_path: Path) -> None:
    """However long the run, a line has at most a thousand points and ends at the last step."""
    page = PageExport(tmp_path / "long.html")
    now = datetime.now(UTC)
    page.begin(job_from_proto(FakeScheduler().job), [Point("train/loss", step, 1.0, now) for step in range(1, 5001)])
    (line,) = re.findall(r'<polyline points="([^"]+)"', (tmp_path / "long.html").read_text())
    assert 500 <= len(line.split()) <= MOST_POINTS + 1
    assert line.split()[-1].startswith(f"{WIDTH - RIGHT:.1f},")
