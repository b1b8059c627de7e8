"""The whole flow on four real processes: import, upload, tune, publish, promote, serve."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from services.launcher import Suite
from tests.support.patience import WAIT_LIMIT_S
from tests.support.suite import connect, running_suite, tiny_inputs
from tests.support.tiny_model import make_tiny_model
from tests.unit.data.reading import parquet
from tuneforge import (
    Budget,
    Client,
    Conflict,
    FailedPrecondition,
    GenerationOptions,
    InvalidArgument,
    NotFound,
    RowShape,
    SplitSide,
)
from tuneforge.events import (
    AttemptOutcome,
    CheckpointSaved,
    DeviceMetrics,
    EvaluationMetrics,
    Event,
    Resolved,
    StateChange,
    StepMetrics,
)
from tuneforge.job_values import JobState
from tuneforge.jobs import JobHandle
from tuneforge.records import verify_record
from tuneforge.specs.spec import (
    BaseModel,
    Checkpointing,
    DataConfig,
    DataSource,
    FullMethod,
    LoraMethod,
    Method,
    Optimization,
    QloraMethod,
    TrainingSpec,
)

STEPS = 6
STOP_GRACE_S = 4.0
"""What a worker may take to stop; short, for one of the tests waits for it."""


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """Four running services."""
    env = {"TUNEFORGE_SCHEDULER_STOP_GRACE_S": str(STOP_GRACE_S)}
    with running_suite(tmp_path_factory.mktemp("suite"), env) as running:
        yield running


@pytest.fixture(scope="module")
def client(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client, with the tiny model registered as `tiny` and rows as `animals`."""
    model, rows = tiny_inputs(tmp_path_factory.mktemp("inputs"))
    with connect(suite) as connected:
        connected.models.import_folder(model, "tiny")
        connected.datasets.upload(rows, "animals")
        yield connected


def spec(method: Method, base: str = "tiny/1", **optimization: object) -> TrainingSpec:
    """Returns a spec of a few steps on the rows."""
    length = {"max_steps": STEPS, "rows_per_step": 2, "learning_rate": 1e-2, **optimization}
    return TrainingSpec(
        base=BaseModel(model=base),
        method=method,
        data=DataConfig(train=DataSource(dataset="animals")),
        optimization=Optimization(**length),  # type: ignore[arg-type]
        checkpointing=Checkpointing(every_steps=2),
        seed=3,
    )


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("lora", LoraMethod(rank=4)),
        ("qlora", QloraMethod(lora=LoraMethod(rank=4))),
        ("full", FullMethod()),
    ],
)
def test_each_method_ends_in_a_version_that_answers(client: Client, name: str, method: Method) -> None:
    """A job streams every step, publishes one version with its lineage, and the version answers with its digests."""
    job = client.jobs.create(spec(method), job_id=f"flow-{name}")
    events = list(job.watch())
    assert [event.job_seq for event in events] == list(range(1, len(events) + 1))
    steps = [event.payload for event in events if isinstance(event.payload, StepMetrics)]
    assert [step.step for step in steps] == list(range(1, STEPS + 1))
    assert steps[-1].loss < steps[0].loss
    assert all(step.tokens_per_second > 0 and step.supervised_tokens > 0 for step in steps)
    for kind in (Resolved, CheckpointSaved, DeviceMetrics, AttemptOutcome):
        assert any(isinstance(event.payload, kind) for event in events), kind.__name__

    ended = job.result()
    assert ended.state is JobState.SUCCEEDED
    assert ended.version is not None
    version = client.models.version(ended.version.version)
    assert version.manifest.digest == ended.version.digest
    assert version.lineage.job == job.name
    assert version.lineage.base is not None
    assert version.lineage.base.digest == client.models.version("tiny/1").manifest.digest
    assert version.lineage.dataset is not None
    assert version.metrics["loss"] == pytest.approx(steps[-1].loss)

    deployment = client.deployments.create(name, ended.version.version)
    (answer,) = client.deployments.generate(
        deployment.name,
        messages=[{"role": "user", "content": "Say cat 0."}],
        options=GenerationOptions(max_new_tokens=8),
    )
    assert answer.served.version == ended.version
    assert answer.completion_tokens > 0
    client.deployments.delete(deployment.name)


def test_alias_moves_with_compare_and_set(client: Client, tmp_path: Path) -> None:
    """An alias moves, a stale move is refused, and the log has each move with its reason."""
    first = client.aliases.set("tiny", "production", 1, reason="first")
    with pytest.raises(Conflict):
        client.aliases.set("tiny", "production", 1, expected="stale", reason="late")
    second = client.models.import_folder(make_tiny_model(tmp_path / "second", seed=1), "tiny")
    moved = client.aliases.set("tiny", "production", second.name, expected=first, reason="better")
    assert moved.version == second.name
    assert [change.reason for change in client.aliases.log("tiny", "production")] == ["better", "first"]


def test_output_of_a_job_is_the_base_of_the_next(client: Client) -> None:
    """A job that names another job as its base waits for it and starts from what it published."""
    first = client.jobs.create(spec(LoraMethod(rank=2)), job_id="parent")
    second = client.jobs.create(
        TrainingSpec(
            base=BaseModel(output_of_job=first.name),
            method=LoraMethod(rank=2),
            data=DataConfig(train=DataSource(dataset="animals")),
            optimization=Optimization(max_steps=2, rows_per_step=2),
        ),
        job_id="child",
    )
    parent, child = first.result(), second.result()
    assert parent.version is not None
    assert child.version is not None
    lineage = client.models.version(child.version.version).lineage
    assert lineage.base == parent.version
    path = client.lineage.path(child.version.version, "models/tiny/1")
    assert [node.name for node in path.nodes][1:-1] == [parent.version.version]
    for job in (parent, child):
        check = verify_record(client, job.name)
        assert check.is_intact, check.problem
        assert check.recorded.num_events > 2


def test_all_faults_of_a_spec_in_one_answer(client: Client) -> None:
    """An unknown model, an unknown data set, a rank too large and a negative rate are named together."""
    bad = TrainingSpec(
        base=BaseModel(model="nothing/1"),
        method=LoraMethod(rank=4),
        data=DataConfig(train=DataSource(dataset="nowhere")),
        optimization=Optimization(learning_rate=-1.0),
    )
    with pytest.raises(InvalidArgument) as caught:
        client.jobs.validate(bad)
    assert {violation.field for violation in caught.value.fields} >= {
        "spec.base.model",
        "spec.data.train.dataset",
        "spec.optimization.learning_rate",
    }
    with pytest.raises(InvalidArgument) as caught:
        client.jobs.validate(spec(LoraMethod(rank=4096)))
    assert [violation.field for violation in caught.value.fields] == ["spec.lora.rank"]


def test_cancel_frees_the_node(suite: Suite, client: Client) -> None:
    """From the call until the worker is gone: at once when it answers, within the grace time when it does not.

    One of the workers is stopped by a signal: it hears no wish and no SIGTERM, as one that hangs in a driver.
    """
    took = [_cancelled_in_s(suite, client, f"long-{number}", is_deaf=False) for number in range(4)]
    deaf = _cancelled_in_s(suite, client, "deaf", is_deaf=True)
    middle, worst = statistics.median(took), max(took)
    print(f"CancelJob to a free device: median {middle:.2f} s, longest {worst:.2f} s of {len(took)}; deaf {deaf:.2f} s")
    assert middle < STOP_GRACE_S, "who answers is not waited for"
    assert STOP_GRACE_S <= deaf < STOP_GRACE_S + 10.0
    assert worst < STOP_GRACE_S + 10.0
    assert client.jobs.create(spec(LoraMethod(rank=2)), job_id="next").result().version is not None


def _cancelled_in_s(suite: Suite, client: Client, job_id: str, *, is_deaf: bool) -> float:
    """Cancels a job that trains; returns the seconds until its worker is gone, and the job is CANCELLED with it."""
    long = client.jobs.create(spec(LoraMethod(rank=2), max_steps=100_000), job_id=job_id)
    for event in long.watch():
        if isinstance(event.payload, StepMetrics):
            break
    path = suite.data / "trainer" / "jobs" / "default" / job_id / "attempts" / "1-0" / "worker.json"
    worker = psutil.Process(json.loads(path.read_text())["pid"])
    if is_deaf:
        worker.suspend()
    began = time.monotonic()
    long.cancel("the test has seen enough")
    worker.wait(timeout=WAIT_LIMIT_S)
    assert list(long.watch())[-1].kind == "state"
    seconds = time.monotonic() - began
    assert long.refresh().state is JobState.CANCELLED
    return seconds


def test_a_paused_run_goes_on_bit_for_bit(client: Client) -> None:
    """Paused by hand and by its budget, and resumed, a job has the curve and weights of one that was left alone."""
    whole = client.jobs.create(spec(LoraMethod(rank=4, dropout=0.1), max_steps=40), job_id="left-alone")
    expected = {step.step: step.loss for step in _steps(whole)}
    paused = client.jobs.create(spec(LoraMethod(rank=4, dropout=0.1), max_steps=40), job_id="paused")
    for event in paused.watch():
        if isinstance(event.payload, StepMetrics) and event.payload.step >= 3:
            paused.pause("the test wants to see it go on")
            break
    watch = paused.watch()
    _until_paused(watch)
    assert paused.resume().state is JobState.QUEUED
    for event in watch:
        if isinstance(event.payload, StepMetrics) and event.payload.step >= 12:
            break
    # A budget that is spent already: it pauses again, and goes on once there is none any more.
    paused.resume(budget=Budget(device_seconds=0.001))
    assert _until_paused(watch).reason == "BUDGET_SPENT"
    with pytest.raises(FailedPrecondition, match="device-seconds are spent"):
        paused.resume()
    assert paused.resume(budget=Budget()).state is JobState.QUEUED
    assert {step.step: step.loss for step in _steps(paused)} == expected
    versions = [client.models.version(job.result().version.version) for job in (whole, paused)]  # type: ignore[union-attr]
    weights = [{file.path: file.sha256 for file in version.manifest.files} for version in versions]
    assert weights[0]["adapter_model.safetensors"] == weights[1]["adapter_model.safetensors"]


def _until_paused(watch: Iterator[Event]) -> StateChange:
    for event in watch:
        if isinstance(event.payload, StateChange) and event.payload.to_state == "PAUSED":
            return event.payload
    raise AssertionError("the job ended without a pause")


def _steps(job: JobHandle) -> list[StepMetrics]:
    return [event.payload for event in job.watch() if isinstance(event.payload, StepMetrics)]


def test_what_is_not_there_is_said(client: Client) -> None:
    """A job, a model and a deployment that do not exist are NOT_FOUND by name."""
    for call in (client.jobs.get, client.models.get, client.deployments.get):
        with pytest.raises(NotFound, match="nobody"):
            call("nobody")


def test_a_divided_table_is_learned_and_measured(client: Client, tmp_path: Path) -> None:
    """Rows of a Parquet file are divided by their content: one job learns the one side and measures the other."""
    rows = [{"prompt": f"Say {number}.", "completion": f"word {number}"} for number in range(40)]
    path = tmp_path / "rows.parquet"
    path.write_bytes(parquet({name: [row[name] for row in rows] for name in rows[0]}))
    version = client.datasets.upload(path, "divided", validation_ratio=0.25, seed=1)
    assert version.statistics is not None
    validation = list(client.datasets.rows(version.name, side=SplitSide.VALIDATION))
    assert len(validation) == version.statistics.validation_rows > 0
    source = DataSource(dataset="divided")
    job = client.jobs.create(
        replace(spec(LoraMethod(rank=4)), data=DataConfig(train=source, validation=source)), job_id="divided"
    )
    measured = [event.payload for event in job.watch() if isinstance(event.payload, EvaluationMetrics)]
    assert job.result().state is JobState.SUCCEEDED
    assert measured
    assert {each.rows for each in measured} == {len(validation)}


def test_rows_that_no_job_learns_are_refused_at_its_creation(client: Client, tmp_path: Path) -> None:
    """Preference pairs can be kept; a job of supervised fine-tuning on them is refused with their shape."""
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n')
    assert client.datasets.upload(path, "pairs").shape is RowShape.PREFERENCE
    pairs = replace(spec(LoraMethod(rank=4)), data=DataConfig(train=DataSource(dataset="pairs")))
    with pytest.raises(InvalidArgument, match="PREFERENCE"):
        client.jobs.create(pairs)
