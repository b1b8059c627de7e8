"""One job on two nodes: two real trainers, a scheduler and a registry; what is killed changes no number."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from services.launcher import Suite
from tests.support.suite import connect, running_suite, tiny_inputs
from tests.support.trainer_node import TrainerProcess, eventually
from tuneforge import Client
from tuneforge.events import CheckpointSaved, DeviceMetrics, Event, ResumedFrom, Stall, StepMetrics
from tuneforge.job_values import AttemptState, JobState
from tuneforge.specs.spec import (
    BaseModel,
    Checkpointing,
    ComputeType,
    DataConfig,
    DataSource,
    FullMethod,
    Guards,
    LoraMethod,
    Method,
    Optimization,
    Resources,
    TrainingSpec,
)

STEPS = 60
"""Enough that a kill after the first few finds it running."""


@dataclass
class Two:
    """Two nodes and their services."""

    suite: Suite
    client: Client
    second: TrainerProcess
    folder: Path

    def attempt_folders(self, job: str) -> dict[int, Path]:
        """Returns the folders of the newest attempt's parts by rank, on whichever node they are."""
        found = [*self.folder.glob(f"**/jobs/default/{job}/attempts/*-*")]
        newest = max((int(path.name.split("-")[0]) for path in found), default=0)
        return {int(path.name.split("-")[1]): path for path in found if path.name.startswith(f"{newest}-")}

    def worker_pid(self, job: str, rank: int) -> int:
        """Returns the process that trains one part of the newest attempt."""
        path = self.attempt_folders(job)[rank] / "worker.json"
        return int(json.loads(path.read_text())["pid"])


@contextmanager
def second_trainer(folder: Path, suite: Suite) -> Iterator[TrainerProcess]:
    """Runs a trainer beside that of the suite."""
    env = {
        "TUNEFORGE_TRAINER_NODE": "second",
        "TUNEFORGE_SCHEDULER_ADDRESS": suite.address("scheduler"),
        "TUNEFORGE_REGISTRY_ADDRESS": suite.address("registry"),
        "OMP_NUM_THREADS": "1",
    }
    trainer = TrainerProcess(folder, is_real=True, env=env).start()
    try:
        yield trainer
    finally:
        if trainer.process is None:
            trainer.start()
        trainer.end()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """Four services and a second node, with a model `tiny` and rows `animals`."""
    folder = tmp_path_factory.mktemp("two")
    model, rows = tiny_inputs(tmp_path_factory.mktemp("inputs"))
    with (
        running_suite(folder / "suite") as suite,
        second_trainer(folder / "second", suite) as second,
        connect(suite) as client,
    ):
        client.models.import_folder(model, "tiny")
        client.datasets.upload(rows, "animals")
        eventually(lambda: len(list(client.nodes.list())) == 2, "two nodes")
        yield Two(suite, client, second, folder)


def spec(method: Method, *, nodes: int = 2, steps: int = STEPS) -> TrainingSpec:
    """Returns a spec for several nodes."""
    return TrainingSpec(
        base=BaseModel(model="tiny/1"),
        method=method,
        data=DataConfig(train=DataSource(dataset="animals")),
        optimization=Optimization(max_steps=steps, rows_per_step=4, learning_rate=1e-2),
        checkpointing=Checkpointing(every_steps=4),
        compute=ComputeType.FP32,
        resources=Resources(nodes=nodes),
        seed=3,
    )


def losses(events: list[Event]) -> dict[int, float]:
    """Returns the loss of each step; of one that came twice, the last."""
    return {event.payload.step: event.payload.loss for event in events if isinstance(event.payload, StepMetrics)}


def test_a_job_on_two_nodes_ends_in_a_version(two: Two) -> None:
    """One dense log has the steps of rank 0 and the devices of both, and the version answers as any other."""
    job = two.client.jobs.create(spec(FullMethod(), steps=6), job_id="together")
    events = list(job.watch())
    assert [event.job_seq for event in events] == list(range(1, len(events) + 1))
    assert {event.node_rank for event in events if isinstance(event.payload, StepMetrics)} == {0}
    assert {event.node_rank for event in events if isinstance(event.payload, CheckpointSaved)} == {0}
    assert {event.node_rank for event in events if isinstance(event.payload, DeviceMetrics)} == {0, 1}
    ended = job.result()
    assert (ended.state, ended.attempt) == (JobState.SUCCEEDED, 1)
    alone = two.client.jobs.create(spec(FullMethod(), nodes=1, steps=6), job_id="alone")
    assert losses(events) == pytest.approx(losses(list(alone.watch())), abs=1e-5)
    deployment = two.client.deployments.create("together", ended.version.version if ended.version else "")
    (answer,) = two.client.deployments.generate(deployment.name, prompts=["Say"])
    assert answer.completion_tokens > 0


def watch_and_kill(two: Two, job_id: str, rank: int) -> tuple[list[Event], int]:
    """Runs a job whose part with a rank is killed once it trains; returns all events and the step of the kill."""
    job = two.client.jobs.create(spec(LoraMethod(rank=4, dropout=0.1)), job_id=job_id)
    events: list[Event] = []
    saved = killed_after = 0
    for event in job.watch():
        events.append(event)
        if isinstance(event.payload, CheckpointSaved):  # it is written beside the steps: a slow disk takes some of them
            saved = event.payload.step
        if isinstance(event.payload, StepMetrics) and event.payload.step >= 6 and saved and not killed_after:
            killed_after = event.payload.step
            os.kill(two.worker_pid(job_id, rank), signal.SIGKILL)
    assert job.result().state is JobState.SUCCEEDED
    return events, killed_after


@pytest.mark.heavy
def test_a_killed_worker_restarts_the_whole_gang(two: Two) -> None:
    """Rank 1 killed in one job, rank 0 in another: all nodes start again from the checkpoint, and no number differs."""
    unbroken = losses(list(two.client.jobs.create(spec(LoraMethod(rank=4, dropout=0.1)), job_id="whole").watch()))
    for rank in (1, 0):
        name = f"killed-{rank}"
        events, killed_after = watch_and_kill(two, name, rank)
        assert killed_after < STEPS
        assert [event.job_seq for event in events] == list(range(1, len(events) + 1))
        resumed = [event.payload.step for event in events if isinstance(event.payload, ResumedFrom)]
        assert len(resumed) == 1
        assert resumed[0] >= 4
        assert losses(events) == unbroken
        newest, oldest = list(two.client.jobs.attempts(name))
        assert (newest.state, oldest.state) == (AttemptState.SUCCEEDED, AttemptState.LOST)
        assert [part.state for part in newest.parts] == [AttemptState.SUCCEEDED] * 2
        assert oldest.failure is not None
        assert oldest.failure.reason == "WORKER_LOST"
        assert oldest.parts[rank].state is AttemptState.LOST
        assert {part.node for part in oldest.parts} == {each.name for each in two.client.nodes.list()}


@pytest.mark.heavy
def test_a_killed_agent_changes_nothing(two: Two) -> None:
    """`kill -9` of one node's agent, and another in its place: the workers train on, and the first attempt succeeds."""
    job = two.client.jobs.create(spec(LoraMethod(rank=4)), job_id="orphans")
    events: list[Event] = []
    for event in job.watch():
        events.append(event)
        if isinstance(event.payload, StepMetrics) and event.payload.step == 6:
            two.second.end(signal.SIGKILL)
            two.second.start()
    ended = job.result()
    assert (ended.state, ended.attempt) == (JobState.SUCCEEDED, 1)
    assert sorted(losses(events)) == list(range(1, STEPS + 1))


def test_a_cancel_frees_all_nodes(two: Two) -> None:
    """A cancelled job leaves no worker on any node, and each of them takes other work."""
    job = two.client.jobs.create(spec(LoraMethod(rank=4), steps=100_000), job_id="unwanted")
    for event in job.watch():
        if isinstance(event.payload, StepMetrics) and event.payload.step == 3:
            pids = [two.worker_pid("unwanted", rank) for rank in (0, 1)]
            job.cancel()
    assert job.refresh().state is JobState.CANCELLED
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the end of both workers")
    after = two.client.jobs.create(spec(LoraMethod(rank=4), steps=2), job_id="afterwards")
    assert after.result().state is JobState.SUCCEEDED


def test_a_stall_has_the_stacks_of_both_nodes(two: Two) -> None:
    """Rank 0 hangs, so rank 1 waits for it: the log says of each where its threads stand."""
    guards = Guards(stall_after_s=3.0, stall_ends_after_s=600.0)
    job = two.client.jobs.create(replace(spec(LoraMethod(rank=4), steps=100_000), guards=guards), job_id="hangs")
    pids: list[int] = []
    stacks = {0: "", 1: ""}
    for event in job.watch():
        if isinstance(event.payload, StepMetrics) and event.payload.step == 3:
            pids = [two.worker_pid("hangs", rank) for rank in (0, 1)]
            os.mkfifo(two.attempt_folders("hangs")[0] / "stop.json")  # its next look for a stop waits for ever
        if isinstance(event.payload, Stall) and pids:  # on a slow machine a start may have been one, too
            stacks[event.payload.node_rank] = event.payload.stacks
            if "read_json" in stacks[0] and "train_loop" in stacks[1]:
                job.cancel()
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                pids = []
    assert job.refresh().state is JobState.CANCELLED
    assert "read_json" not in stacks[1], "it hangs at another place"


def test_a_gang_takes_all_nodes_or_none(two: Two) -> None:
    """With one node busy a job for two waits without holding the other, which a later job for one gets."""
    busy = two.client.jobs.create(spec(LoraMethod(rank=4), nodes=1, steps=100_000), job_id="busy")
    eventually(lambda: busy.refresh().state is JobState.RUNNING, "a busy node")
    gang = two.client.jobs.create(spec(LoraMethod(rank=4), steps=2), job_id="patient")
    small = two.client.jobs.create(spec(LoraMethod(rank=4), nodes=1, steps=2), job_id="small")
    assert small.result().state is JobState.SUCCEEDED
    assert gang.refresh().state is JobState.QUEUED
    assert list(two.client.jobs.attempts("patient")) == []
    busy.cancel()
    assert gang.result().state is JobState.SUCCEEDED
