"""Worker, trainer and scheduler are killed at random during one run; a certificate then proves that it lost no bit."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from services.launcher import SERVICES, Suite
from tests.support.suite import connect, running_suite
from tests.support.tiny_model import make_tiny_model, write_rows
from tests.support.trainer_node import eventually
from tuneforge import Client, JobHandle
from tuneforge.cli.app import cli
from tuneforge.events import Event, ResumedFrom, StepMetrics
from tuneforge.job_values import JobState

pytestmark = pytest.mark.heavy

STEPS = 120
SEED = int(os.environ.get("TUNEFORGE_TEST_SEED", "20261121"))
SPEC = {
    "base": {"model": "tiny/1"},
    "supervised": {},
    "lora": {"rank": 4, "dropout": 0.1},
    "data": {"train": {"dataset": "animals"}},
    "optimization": {"max_steps": STEPS, "rows_per_step": 16, "learning_rate": 0.01},
    "checkpointing": {"every_steps": 5},
    "seed": 3,
}


def kill_worker(suite: Suite, job: JobHandle) -> bool:
    """Kills the worker of a job's newest attempt; returns whether it was still there."""
    number = next(job.attempts()).name.rpartition("/")[2]
    path = suite.data / "trainer/jobs/default" / job.id / "attempts" / f"{number}-0" / "worker.json"
    identity = eventually(lambda: path.exists() and json.loads(path.read_text()), "a worker")
    try:
        os.kill(identity["pid"], signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def run_with_kills(suite: Suite, client: Client) -> list[Event]:
    """Runs a job of which each part is killed twice at random steps, and returns all that a watcher saw."""
    chance = random.Random(SEED)
    kills = ["worker", "trainer", "scheduler"] * 2
    chance.shuffle(kills)
    faults = sorted(zip(chance.sample(range(3, STEPS - 5), len(kills)), kills, strict=True))
    print(f"seed {SEED}: {faults}")
    job = client.jobs.create(SPEC, job_id="killed")
    seen: list[Event] = []
    workers_killed = 0
    for event in job.watch():
        seen.append(event)
        while faults and isinstance(event.payload, StepMetrics) and event.payload.step >= faults[0][0]:
            _, victim = faults.pop(0)
            if victim == "worker":
                workers_killed += kill_worker(suite, job)
                break
            suite.kill(victim)
            suite.start(victim)
    assert not faults
    assert workers_killed
    assert job.refresh().state is JobState.SUCCEEDED
    return seen


def say(suite: Suite, *arguments: str, code: int = 0) -> dict[str, Any]:
    """Runs a command and returns what it printed as JSON."""
    env = {f"TUNEFORGE_{service.upper()}_ADDRESS": suite.address(service) for service in SERVICES}
    done = CliRunner().invoke(cli, [*arguments, "--json"], env=env)
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if code == 0 else {}


def test_a_run_of_kills_is_certified(tmp_path: Path) -> None:
    """After six kills a repetition on the node gives the same bits; a branch goes on from the same state."""
    model = make_tiny_model(tmp_path / "model", layers=4, hidden=128)
    rows = write_rows(tmp_path / "rows.jsonl", 64)
    quick = {"TUNEFORGE_SCHEDULER_RETRY_FIRST_S": "0.1"}
    with running_suite(tmp_path / "suite", quick) as suite, connect(suite) as client:
        client.models.import_folder(model, "tiny")
        client.datasets.upload(rows, "animals")
        seen = run_with_kills(suite, client)
        assert any(isinstance(event.payload, ResumedFrom) for event in seen)
        kept = [each.step for each in client.checkpoints.list("killed") if each.manifest is not None]
        newest, before = kept  # of saves that come faster than copies are made, not every one is copied
        assert newest == STEPS
        begin = f"killed/{before}"

        proof = client.checkpoints.verify_resume(begin)
        done = client.jobs.get(proof.name).result()
        assert done.verification
        certificate = done.verification.certificate
        assert certificate
        assert certificate.passed
        assert [each.step for each in certificate.steps] == list(range(before + 1, before + 6))
        assert len(certificate.expected_weights_digest) == 64
        checks = [check for report in client.models.validations("killed/1") for check in report.checks]
        assert [check.passed for check in checks if check.name == "resume"] == [True]

        branch = client.jobs.create(
            {"optimization": {"max_steps": STEPS + 5}}, job_id="branch", from_checkpoint=begin
        ).result()
        assert branch.from_checkpoint == f"projects/default/jobs/killed/checkpoints/{before}"
        assert branch.step == STEPS + 5
        assert branch.version
        assert branch.version.version == "projects/default/models/killed/versions/2"
        steps = [event.payload.step for event in client.jobs.watch("branch") if isinstance(event.payload, StepMetrics)]
        assert steps == list(range(before + 1, STEPS + 6))

        assert say(suite, "models", "certificate", "killed/1")["passed"] is True
        assert say(suite, "jobs", "show", done.id)["verification"]["checkpoint"].endswith(f"/{before}")
        assert say(suite, "checkpoints", "pin", begin)["is_pinned"] is True
        assert say(suite, "checkpoints", "delete", begin, code=1) == {}  # it is pinned
        assert say(suite, "checkpoints", "unpin", begin)["is_pinned"] is False
        got = say(suite, "checkpoints", "download", begin, str(tmp_path / "here"))
        assert got["digest"] == client.checkpoints.get(begin).digest
        assert (tmp_path / "here" / "weights.safetensors").exists()
        assert say(suite, "checkpoints", "delete", begin)["step"] == before
        left = list(client.checkpoints.list("killed"))
        assert [each.step for each in left if each.manifest is not None] == [STEPS]
        assert before not in [each.step for each in left]
        assert say(suite, "checkpoints", "get", begin, code=1) == {}
