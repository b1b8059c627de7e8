"""Reference cases of metrics: 003-15 and 003-16; the page on a port is in `tests/suite/test_one_shot.py`."""

from __future__ import annotations

import pytest

from tests.support.exposition import Page
from tuneforge.metrics.exposition import page
from tuneforge.metrics.job import JobFigures, JobLabels, JobStatus, families

NAMES = {
    "finetuning_job_status": "gauge",
    "finetuning_job_duration_seconds": "histogram",
    "finetuning_training_epoch": "gauge",
    "finetuning_training_step": "gauge",
    "finetuning_training_progress": "gauge",
    "finetuning_train_loss": "gauge",
    "finetuning_learning_rate": "gauge",
    "finetuning_samples_per_second": "gauge",
    "finetuning_gpu_utilization_percent": "gauge",
    "finetuning_gpu_memory_used_bytes": "gauge",
    "finetuning_checkpoints_total": "counter",
    "finetuning_checkpoint_size_bytes": "histogram",
}


@pytest.mark.parametrize("case", ["003-15"])
def test_the_twelve_names(case: str) -> None:
    """All are declared with their types, with and without a job; without a GPU its names have no samples."""
    job = JobFigures(JobLabels("output", "owner/base", "lora"))
    for jobs in ([], [job]):
        found = Page(page(families(jobs)))
        assert found.types.items() >= NAMES.items()
        assert found.labels("finetuning_gpu_utilization_percent") == []
    assert {status.name: status.value for status in JobStatus} == {
        "PENDING": 0,
        "RUNNING": 1,
        "SUCCEEDED": 2,
        "FAILED": 3,
        "PAUSED": 4,
    }


@pytest.mark.parametrize(
    ("total_steps", "progress"), [pytest.param(200, 25.0, id="003-16-steps"), pytest.param(0, 25.0, id="003-16-passes")]
)
def test_progress(total_steps: int, progress: float) -> None:
    """From steps where their number is known, else from passes."""
    labels = JobLabels("output", "owner/base", "lora")
    job = JobFigures(labels, step=50, total_steps=total_steps, epoch=1, total_epochs=4)
    assert Page(page(families([job]))).value("finetuning_training_progress") == progress
