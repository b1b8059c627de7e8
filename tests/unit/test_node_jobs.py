"""The metrics of a node forget jobs that have gone, so that its memory and its page stay small."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from services.trainer.ends import AttemptState, End
from services.trainer.folders import AttemptFolder
from services.trainer.job_metrics import JOBS_KEPT, NodeJobs
from tuneforge.names import JobName
from tuneforge.v1 import events_pb2, trainer_pb2


def attempt_of(number: int, folder: Path) -> Any:
    """Returns what the metrics look at of an attempt."""
    name = JobName("p", f"j{number}").attempt(1)
    files = AttemptFolder(folder / str(number))
    files.path.mkdir()
    request = trainer_pb2.StartAttemptRequest(name=str(name), world_size=1)
    request.spec.lora.rank = 4
    files.request.write_bytes(request.SerializeToString())
    return SimpleNamespace(assignment=SimpleNamespace(name=name), folder=files, id=(str(name), 0))


@pytest.mark.parametrize("result", [events_pb2.ATTEMPT_RESULT_SUCCEEDED, events_pb2.ATTEMPT_RESULT_INTERRUPTED])
def test_the_oldest_of_many_that_have_gone_are_forgotten(
    result: events_pb2.AttemptResult.ValueType, tmp_path: Path
) -> None:
    """Whether they have ended or went on elsewhere; what still runs is shown however old it is."""
    jobs = NodeJobs()
    for number in range(JOBS_KEPT + 3):
        attempt = attempt_of(number, tmp_path)
        states = events_pb2.StateChange(to="RUNNING")
        jobs.saw(attempt, events_pb2.Event(attempt=1, seq=1, state=states).SerializeToString())
        if number:
            outcome = events_pb2.AttemptOutcome(result=result)
            jobs.saw(attempt, events_pb2.Event(attempt=1, seq=2, outcome=outcome).SerializeToString())
            jobs.ended(attempt, End(state=AttemptState.SUCCEEDED, time=1.0, failure=None))
    (status,) = [metric for metric in jobs.collect() if metric.name == "finetuning_job_status"]
    shown = [sample.labels["job_name"] for sample in status.samples]
    assert len(shown) == JOBS_KEPT + 1
    assert "p/j0" in shown
    assert "p/j1" not in shown
    assert f"p/j{JOBS_KEPT + 2}" in shown
