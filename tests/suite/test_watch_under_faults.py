"""Whoever is killed at whatever moment: a watcher sees every event once and in order, and the numbers are the same."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.launcher import Suite
from tests.support.suite import connect, running_suite
from tests.support.tiny_model import make_tiny_model, write_rows
from tuneforge import Client, JobHandle
from tuneforge.events import CheckpointSaved, Event, ResumedFrom, StepMetrics
from tuneforge.job_values import JobState
from tuneforge.specs.spec import (
    BaseModel,
    Checkpointing,
    DataConfig,
    DataSource,
    LoraMethod,
    Optimization,
    TrainingSpec,
)

pytestmark = pytest.mark.heavy

STEPS = 240
FAULTS = 10
SEED = int(os.environ.get("TUNEFORGE_TEST_SEED", "20261121"))


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """Four running services that notice a lost worker and a lost peer quickly."""
    with running_suite(tmp_path_factory.mktemp("suite")) as running:
        yield running


@pytest.fixture(scope="module")
def client(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client, with a model large enough that a run lasts longer than ten restarts."""
    folder = tmp_path_factory.mktemp("inputs")
    with connect(suite) as connected:
        connected.models.import_folder(make_tiny_model(folder / "model", layers=4, hidden=256), "small")
        connected.datasets.upload(write_rows(folder / "rows.jsonl", 64), "animals")
        yield connected


def spec() -> TrainingSpec:
    """Returns the run that is made twice; dropout makes it depend on the random state too."""
    return TrainingSpec(
        base=BaseModel(model="small/1"),
        method=LoraMethod(rank=4, dropout=0.1),
        data=DataConfig(train=DataSource(dataset="animals")),
        optimization=Optimization(max_steps=STEPS, rows_per_step=16, learning_rate=1e-3),
        checkpointing=Checkpointing(every_steps=10),
        seed=11,
    )


@pytest.fixture(scope="module")
def unbroken(client: Client) -> dict[int, tuple[float, float]]:
    """Loss and gradient norm by step of a run that nobody disturbs."""
    job = client.jobs.create(spec(), job_id="unbroken")
    steps = [event.payload for event in job.watch() if isinstance(event.payload, StepMetrics)]
    assert job.refresh().state is JobState.SUCCEEDED
    return {step.step: (step.loss, step.grad_norm) for step in steps}


def curve(events: list[Event]) -> dict[int, tuple[float, float]]:
    """Returns loss and gradient norm by step, the newest attempt's where a step was made twice."""
    return {
        event.payload.step: (event.payload.loss, event.payload.grad_norm)
        for event in events
        if isinstance(event.payload, StepMetrics)
    }


def assert_dense(events: list[Event]) -> None:
    """Asserts that every event came once and in order, for the job and for each attempt's worker."""
    assert [event.job_seq for event in events] == list(range(1, len(events) + 1))
    by_attempt: dict[int, list[int]] = {}
    for event in events:
        if event.attempt:
            by_attempt.setdefault(event.attempt, []).append(event.seq)
    for attempt, seqs in by_attempt.items():
        assert seqs == list(range(1, len(seqs) + 1)), f"attempt {attempt}"


def test_ten_kills_of_scheduler_trainer_and_client(
    suite: Suite, client: Client, unbroken: dict[int, tuple[float, float]]
) -> None:
    """Scheduler, trainer service and client are killed at random steps; the stream is dense, the losses are equal."""
    chance = random.Random(SEED)
    faults = sorted(zip(chance.sample(range(2, STEPS - 20), FAULTS), _kinds(chance), strict=True))
    print(f"seed {SEED}: {faults}")
    job = client.jobs.create(spec(), job_id="faulted")
    seen: list[Event] = []
    watch = job.watch()
    while not watch.has_ended:
        for event in watch:
            seen.append(event)
            if faults and isinstance(event.payload, StepMetrics) and event.payload.step >= faults[0][0]:
                _, victim = faults.pop(0)
                if victim == "client":
                    break
                suite.kill(victim)
                suite.start(victim)
        else:
            continue
        cursor = watch.cursor
        watch.close()
        watch = job.watch(cursor=cursor)
    assert not faults
    assert job.refresh().state is JobState.SUCCEEDED
    assert_dense(seen)
    assert job.job.attempt == 1, "a killed agent's worker is adopted, not replaced"
    assert curve(seen) == unbroken


def _kinds(chance: random.Random) -> list[str]:
    kinds = ["scheduler", "trainer", "client"] * 3 + ["scheduler"]
    chance.shuffle(kinds)
    return kinds


def test_killed_worker_resumes_bit_for_bit(
    suite: Suite, client: Client, unbroken: dict[int, tuple[float, float]]
) -> None:
    """A worker killed twice becomes new attempts from its newest checkpoints, and the curve is the unbroken one."""
    job = client.jobs.create(spec(), job_id="killed-worker")
    seen: list[Event] = []
    kills, saved = [35, 90], 0
    for event in job.watch():
        seen.append(event)
        if isinstance(event.payload, CheckpointSaved):  # it is written beside the steps: a slow disk takes some of them
            saved = event.payload.step
        is_newest = event.attempt == 3 - len(kills)  # what the killed one had told before is no sign of life
        step = event.payload.step if isinstance(event.payload, StepMetrics) else 0
        if kills and is_newest and saved >= 30 and step >= kills[0]:
            kills.pop(0)
            os.kill(_worker_pid(suite.data, job), signal.SIGKILL)
    assert job.refresh().state is JobState.SUCCEEDED
    assert job.job.attempt == 3
    assert_dense(seen)
    resumed = [event.payload.step for event in seen if isinstance(event.payload, ResumedFrom)]
    assert len(resumed) == 2
    assert all(step >= 30 for step in resumed)
    assert curve(seen) == unbroken


def _worker_pid(data: Path, job: JobHandle) -> int:
    """Returns the process id of the job's newest worker, as the node has written it down."""
    found = sorted((data / "trainer").rglob("worker.json"), key=lambda path: path.stat().st_mtime)
    mine = [path for path in found if job.id in str(path)]
    return int(json.loads(mine[-1].read_text())["pid"])


def test_stop_of_everything_goes_on_at_the_next_start(suite: Suite, client: Client) -> None:
    """Services stopped in the middle of a run save a checkpoint; after the next start the run goes on from it."""
    job = client.jobs.create(spec(), job_id="stopped")
    seen: list[Event] = []
    with job.watch() as watch:
        for event in watch:
            seen.append(event)
            if isinstance(event.payload, StepMetrics) and event.payload.step == 25:
                break
        cursor = watch.cursor
    suite.stop()
    suite.start()
    seen += job.watch(cursor=cursor)
    assert job.refresh().state is JobState.SUCCEEDED
    assert_dense(seen)
    resumed = [event.payload.step for event in seen if isinstance(event.payload, ResumedFrom)]
    assert resumed
    assert resumed[0] >= 25, "the stop saved the state of its own moment"
