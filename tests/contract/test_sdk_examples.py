"""The client programs in `examples/` do what they say."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support import fake_scheduler
from tests.support.fake_scheduler import JOB, FakeScheduler
from tuneforge.v1 import events_pb2, jobs_pb2

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def scheduler() -> FakeScheduler:
    """A scheduler with a job of twenty steps that has succeeded."""
    fake = FakeScheduler()
    fake.job.state = jobs_pb2.JOB_STATE_SUCCEEDED
    for number in range(1, 21):
        step = events_pb2.StepMetrics(step=number, total_steps=20, loss=1.0)
        fake.events.append(events_pb2.Event(job=JOB, job_seq=number, attempt=1, seq=number, step=step))
    return fake


@pytest.fixture
def environment(scheduler: FakeScheduler) -> Iterator[Mapping[str, str]]:
    """The environment of a program that finds the fake."""
    with fake_scheduler.serve(scheduler) as address:
        yield {**os.environ, "TUNEFORGE_SCHEDULER_ADDRESS": address}


def test_the_client_on_one_page_submits_and_watches(
    environment: Mapping[str, str], scheduler: FakeScheduler, tmp_path: Path
) -> None:
    """It prints each step and ends with what was published."""
    scheduler.job.version.version = "projects/default/models/m/versions/2"
    spec = {"base": {"model": "m/1"}, "supervised": {}, "lora": {}, "data": {"train": {"dataset": "rows"}}}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "examples/client.py", str(tmp_path / "spec.json")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert lines[0] == "projects/default/jobs/job-1 is QUEUED"
    assert lines[20] == "step 20/20  loss 1.0000  0 s to go"
    assert "models/m/versions/2" in lines[21]


def test_a_killed_consumer_goes_on_where_its_file_ends(
    environment: Mapping[str, str], scheduler: FakeScheduler, tmp_path: Path
) -> None:
    """After SIGKILL in the middle, and half a line on disk, every event stands in the file once."""
    path = tmp_path / "events.jsonl"
    command = [sys.executable, "-m", "examples.watch_from_cursor", "my-job", str(path)]
    scheduler.cut = lambda stream, message: "silence" if stream == 0 and message == 5 else ""
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        while not path.exists() or path.read_bytes().count(b"\n") < 6:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    with path.open("ab") as file:
        file.write(b'{"cursor": "9')
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    events = [json.loads(line)["event"]["job_seq"] for line in path.read_text().splitlines()]
    assert events == list(range(1, 21))
    assert scheduler.streams == 2
