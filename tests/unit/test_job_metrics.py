"""The figures of a job under names that dashboards know: a fold over events, and the page as Prometheus reads it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.message import Message

from tests.support.exposition import Page
from tuneforge.events import Event, event_from_proto
from tuneforge.metrics.exposition import Family, Histogram, Sample, page
from tuneforge.metrics.job import JobFigures, JobLabels, JobStatus, families
from tuneforge.v1 import events_pb2 as pb
from tuneforge.v1 import spec_pb2

LABELS = JobLabels(job_name="output", model_id="Qwen/Qwen2.5-7B-Instruct", method="lora")
BEGIN = datetime(2026, 1, 2, tzinfo=UTC)
_FIELDS = {
    field.message_type.full_name: field.name
    for field in pb.Event.DESCRIPTOR.oneofs_by_name["payload"].fields
    if field.message_type is not None
}


def event(payload: Message, *, attempt: int = 1, after_s: float = 0.0, node_rank: int = 0) -> Event:
    """Makes an event."""
    message = pb.Event(job="projects/p/jobs/j", attempt=attempt, node_rank=node_rank)
    message.time.FromDatetime(BEGIN + timedelta(seconds=after_s))
    getattr(message, _FIELDS[payload.DESCRIPTOR.full_name]).CopyFrom(payload)
    return event_from_proto(message)


def state(to: str, *, attempt: int = 0, after_s: float = 0.0) -> Event:
    """Makes a change of state, of the job unless an attempt is named."""
    return event(pb.StateChange(to=to), attempt=attempt, after_s=after_s)


def figures(*events: Event) -> JobFigures:
    """Folds events."""
    job = JobFigures(LABELS)
    for each in events:
        job.take(each)
    return job


def shown(*jobs: JobFigures) -> Page:
    """Returns the page of jobs."""
    return Page(page(families(jobs)))


STEP = pb.StepMetrics(
    step=50, total_steps=200, epoch=1.25, loss=2.5, learning_rate=1e-4, tokens_per_second=900.0, step_seconds=0.5
)


def test_a_running_job() -> None:
    """Status, progress, loss and speed are those of the newest step."""
    spec = spec_pb2.TrainingSpec(optimization=spec_pb2.Optimization(rows_per_step=4, epochs=4))
    found = shown(figures(state("RUNNING"), event(pb.Resolved(spec=spec)), event(STEP)))
    whole = {"job_name": "output", "model_id": "Qwen/Qwen2.5-7B-Instruct", "method": "lora"}
    short = {key: whole[key] for key in ("job_name", "model_id")}
    assert found.labels("finetuning_job_status") == [whole]
    assert found.value("finetuning_job_status") == 1
    assert found.value("finetuning_training_progress", **short) == 25.0
    assert (found.value("finetuning_training_step"), found.value("finetuning_training_epoch")) == (50, 1.25)
    assert found.labels("finetuning_train_loss") == [{**short, "epoch": "1"}]
    assert found.value("finetuning_train_loss") == 2.5
    assert found.value("finetuning_learning_rate") == 1e-4
    assert found.value("finetuning_samples_per_second") == 8.0
    assert found.value("finetuning_tokens_per_second") == 900.0
    assert found.types["finetuning_gpu_utilization_percent"] == "gauge"
    assert found.labels("finetuning_gpu_utilization_percent") == []


def test_the_loss_of_an_older_pass_is_dropped() -> None:
    """The label with the pass leaves no stale series."""
    later = pb.StepMetrics(step=120, total_steps=200, epoch=2.4, loss=2.0)
    assert [each["epoch"] for each in shown(figures(event(STEP), event(later))).labels("finetuning_train_loss")] == [
        "2"
    ]


@pytest.mark.parametrize(
    ("states", "status"),
    [
        ([], JobStatus.PENDING),
        (["QUEUED"], JobStatus.PENDING),
        (["QUEUED", "STARTING", "RUNNING"], JobStatus.RUNNING),
        (["RUNNING", "PUBLISHING"], JobStatus.RUNNING),
        (["RUNNING", "SUCCEEDED"], JobStatus.SUCCEEDED),
        (["RUNNING", "FAILED"], JobStatus.FAILED),
        (["QUEUED", "CANCELLED"], JobStatus.FAILED),
        (["RUNNING", "PAUSING", "PAUSED"], JobStatus.PAUSED),
        (["RUNNING", "QUEUED"], JobStatus.PENDING),
    ],
)
def test_status_follows_the_job(states: list[str], status: JobStatus) -> None:
    """Every state of a job has its number."""
    assert figures(*map(state, states)).status is status


@pytest.mark.parametrize(
    ("result", "status", "is_measured"),
    [
        (pb.ATTEMPT_RESULT_SUCCEEDED, 2, True),
        (pb.ATTEMPT_RESULT_FAILED, 3, True),
        (pb.ATTEMPT_RESULT_CANCELLED, 3, True),
        (pb.ATTEMPT_RESULT_INTERRUPTED, 4, False),
    ],
)
def test_a_node_knows_attempts_only(result: pb.AttemptResult.ValueType, status: int, is_measured: bool) -> None:
    """Without the job's own states those of its attempt count; the duration is that of failures too."""
    begin = [state("STARTING", attempt=1), state("RUNNING", attempt=1, after_s=10)]
    found = shown(figures(*begin, event(STEP), event(pb.AttemptOutcome(result=result), after_s=100)))
    assert found.value("finetuning_job_status") == status
    count = found.value("finetuning_job_duration_seconds_count", method="lora")
    assert count == (1 if is_measured else None)
    if is_measured:
        assert found.value("finetuning_job_duration_seconds_sum") == 90.0
        assert found.value("finetuning_job_duration_seconds_bucket", le="60.0") == 0
        assert found.value("finetuning_job_duration_seconds_bucket", le="300.0") == 1


def test_a_failed_attempt_is_not_a_failed_job() -> None:
    """Where the job's states are known, an attempt that is replaced changes nothing."""
    job = figures(state("RUNNING"), event(pb.AttemptOutcome(result=pb.ATTEMPT_RESULT_FAILED)))
    assert job.status is JobStatus.RUNNING


def test_progress_by_passes() -> None:
    """Without a number of steps, progress is counted in passes."""
    spec = spec_pb2.TrainingSpec(optimization=spec_pb2.Optimization(epochs=4))
    job = figures(event(pb.Resolved(spec=spec)), event(pb.StepMetrics(step=50, epoch=1)))
    assert job.progress == 25.0


def test_accelerators_are_shown_while_it_runs() -> None:
    """Each has its number; after the end there is no series of it, even when a late sample comes."""
    sample = pb.DeviceMetrics()
    for index in (0, 3):
        sample.devices.add(index=index, utilization_percent=75, memory_used_bytes=3, memory_total_bytes=9)
    running = [state("RUNNING"), event(sample)]
    found = shown(figures(*running))
    assert found.labels("finetuning_gpu_memory_used_bytes") == [
        {"job_name": "output", "gpu_id": "0"},
        {"job_name": "output", "gpu_id": "3"},
    ]
    assert found.value("finetuning_gpu_utilization_percent", gpu_id="3") == 75
    assert found.value("finetuning_gpu_memory_total_bytes", gpu_id="0") == 9
    over = shown(figures(*running, state("SUCCEEDED"), event(sample)))
    assert over.labels("finetuning_gpu_memory_used_bytes") == []


def test_accelerators_of_several_nodes_are_told_apart() -> None:
    """A node's number stands before that of its device, but for the first one's."""
    sample = pb.DeviceMetrics(devices=[pb.DeviceSample(index=0, memory_used_bytes=5)])
    found = shown(figures(state("RUNNING"), event(sample), event(sample, node_rank=1), event(sample)))
    assert [labels["gpu_id"] for labels in found.labels("finetuning_gpu_memory_used_bytes")] == ["0", "1-0"]


def test_checkpoints_are_counted_with_their_sizes() -> None:
    """A counter and a histogram."""
    sizes = (500, 2_000_000, 2_000_000)
    found = shown(figures(*(event(pb.CheckpointSaved(step=1, size_bytes=size)) for size in sizes)))
    assert found.types["finetuning_checkpoints_total"] == "counter"
    assert found.value("finetuning_checkpoints_total") == 3
    assert found.types["finetuning_checkpoint_size_bytes"] == "histogram"
    assert found.value("finetuning_checkpoint_size_bytes_bucket", le="1000000.0") == 1
    assert found.value("finetuning_checkpoint_size_bytes_count") == 3


def test_many_jobs_share_a_page() -> None:
    """Each family is declared once."""
    jobs = [JobFigures(JobLabels(name, "base", "full")) for name in ("a", "b")]
    text = page(families(jobs))
    assert text.count("# TYPE finetuning_job_status gauge") == 1
    assert [labels["job_name"] for labels in Page(text).labels("finetuning_job_status")] == ["a", "b"]


@pytest.mark.parametrize("value", [0.0, -1.5, 1e-300, 3e300, math.inf, -math.inf, math.nan])
def test_numbers_survive(value: float) -> None:
    """Every float is read back as it was."""
    found = Page(page([Family("x", "gauge", "h", [Sample("x", {}, value)])])).value("x")
    assert found == value or (found is not None and math.isnan(found) and math.isnan(value))


@pytest.mark.parametrize("text", ["plain", 'with "quotes"', "back\\slash", "line\nbreak", "\\n", "ünï €"])
def test_labels_survive(text: str) -> None:
    """Whatever a name holds cannot break the page."""
    labels = {"job_name": text}
    assert Page(page([Family("x", "gauge", text, [Sample("x", labels, 1)])])).labels("x") == [labels]


def test_buckets_count_up() -> None:
    """A bucket holds all below its bound, the bound included, and the last one everything."""
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 99.0):
        histogram.observe(value)
    samples: Iterable[Sample] = histogram.samples("x", {})
    assert [sample.value for sample in itertools.islice(samples, 3)] == [2, 3, 4]
