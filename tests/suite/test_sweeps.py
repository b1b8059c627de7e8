"""A sweep of real runs on four real services: it stops bad trials, finds the better rate, and shows what it found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from services.launcher import Suite
from tests.support.suite import connect, running_suite, tiny_inputs
from tests.support.trainer_node import eventually
from tuneforge import Client, InvalidArgument, JobFilter, JobState
from tuneforge.cli.app import cli
from tuneforge.events import StateChange

pytestmark = pytest.mark.heavy

RATE = "optimization.learning_rate"
STOP_BOUND_S = 15.0
"""Half of the time after which a process that does not stop is ended."""
STEPS = 600
RATES = [1e-7, 2e-2, 1e-6, 3e-7]
"""The second one is known to be better: the others are too small to learn anything in a few steps."""


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """Four running services; values of trials are looked for at short times."""
    with running_suite(tmp_path_factory.mktemp("suite")) as running:
        yield running


@pytest.fixture(scope="module")
def client(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client, with a tiny model and rows that are divided."""
    model, rows = tiny_inputs(tmp_path_factory.mktemp("inputs"))
    with connect(suite) as connected:
        connected.models.import_folder(model, "tiny")
        connected.datasets.upload(rows, "animals", validation_ratio=0.25)
        yield connected


def plan() -> dict[str, Any]:
    """Returns a grid over the rates, in whose middle trials are stopped."""
    return {
        "space": {RATE: RATES},
        "algorithm": "grid",
        "num_trials": 6,
        "pruning": {"successive_halving": {"min_steps": 20, "reduction_factor": 2}},
    }


def spec() -> dict[str, Any]:
    """Returns a run of some seconds, measured now and then: values are looked at once a second."""
    return {
        "base": {"model": "tiny"},
        "supervised": {},
        "lora": {"rank": 4},
        "data": {"train": {"dataset": "animals"}, "validation": {"dataset": "animals"}, "max_tokens": 64},
        "optimization": {"max_steps": STEPS, "rows_per_step": 4, "schedule": "constant", "warmup_ratio": 0},
        "checkpointing": {"every_steps": 0},
        "evaluation": {"every_steps": 20},
        "guards": {"loss_explosion_factor": 0},
        "precision": {"compute": "fp32"},
        "seed": 5,
    }


def test_a_sweep_of_real_runs_finds_the_better_rate(client: Client, suite: Suite, tmp_path: Path) -> None:
    """Four points, each trained once; those without hope end early, and their device goes to the next one."""
    made = client.sweeps.create(spec(), plan(), sweep_id="rates")
    assert (made.combinations, made.cost.trials) == (4, 4)
    last, _ = list(client.sweeps.watch("rates"))[-1]
    assert last.state == "SUCCEEDED", last.message
    assert last.best is not None
    assert last.best.parameters == {RATE: 2e-2}
    assert last.best.version is not None
    assert last.counts["pruned"] >= 1
    trials = list(client.sweeps.trials("rates"))
    stopped = [each for each in trials if each.state == "PRUNED"]
    assert all(each.step < STEPS for each in stopped)
    jobs = {job.name: job for job in client.jobs.list(JobFilter(output_model="projects/default/models/rates"))}
    assert set(jobs) == {each.job for each in trials}
    assert {jobs[each.job].state for each in stopped} == {JobState.CANCELLED}
    for each in stopped:  # from the stop to a free device: far below what a stop may take before its process is ended
        moments = {
            event.payload.to_state: event.time
            for event in client.jobs.get(each.job).watch()
            if isinstance(event.payload, StateChange)
        }
        seconds = (moments["CANCELLED"] - moments["CANCELLING"]).total_seconds()
        print(f"{each.job} was free {seconds:.2f} s after its stop")
        assert seconds < STOP_BOUND_S
    whole = client.sweeps.trial(f"rates/{last.best.number}")
    assert min(value for _, value in whole.reports) == whole.value
    assert client.models.version(last.best.version.version).name == last.best.version.version
    shown = CliRunner().invoke(
        cli, ["--scheduler", suite.address("scheduler"), "sweeps", "report", "rates", "--out", str(tmp_path / "r.html")]
    )
    assert shown.exit_code == 0, shown.output
    assert 'class="run best"' in (tmp_path / "r.html").read_text()


def test_the_command_line_begins_and_shows_a_sweep(client: Client, suite: Suite, tmp_path: Path) -> None:
    """From a file; a dry run shows the cost and begins nothing; what is wrong is listed with its place."""
    file = tmp_path / "sweep.json"
    content = {"spec": spec() | {"optimization": {"max_steps": 4}}, "space": {RATE: [1e-3]}, "num_trials": 1}
    file.write_text(json.dumps(content))

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(cli, ["--scheduler", suite.address("scheduler"), "sweeps", *arguments])

    dry = run("create", str(file), "--name", "one", "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "1 trials" in dry.output
    assert "one" not in [each.id for each in client.sweeps.list()]
    begun = run("create", str(file), "--name", "one", "--watch")
    assert begun.exit_code == 0, begun.output
    assert "one SUCCEEDED: Trial 1 of 1 is the best" in begun.output
    assert "optimization.learning_rate=0.001" in run("show", "one").output
    assert "SUCCEEDED" in run("trials", "one").output
    file.write_text(json.dumps(content | {"space": {"optimization.learning_rat": [1e-3]}, "num_trials": 0}))
    wrong = run("create", str(file))
    assert isinstance(wrong.exception, InvalidArgument)
    assert {each.field for each in wrong.exception.fields} == {"plan.parameters[0].field", "plan.num_trials"}
    assert run("delete", "one").exit_code == 0


def test_every_trial_gives_its_memory_back(client: Client, suite: Suite) -> None:
    """004-38: of six trials three fail, for no row fits; after them the trainer has no more processes than before."""
    trainer = psutil.Process(suite.processes["trainer"].pid)

    def processes() -> int:
        """Workers are children of the process that forks them, which the trainer begins once it listens."""
        return len(trainer.children(recursive=True))

    eventually(lambda: processes() == 1, "a trainer without workers")
    short = spec() | {"optimization": {"max_steps": 2, "rows_per_step": 4}}
    plan = {"space": {"data.max_tokens": [64, 8], RATE: [1e-3, 2e-3, 3e-3]}, "algorithm": "grid", "num_trials": 6}
    client.sweeps.create(short, plan, sweep_id="memory")
    last, _ = list(client.sweeps.watch("memory"))[-1]
    assert (last.counts["succeeded"], last.counts["failed"]) == (3, 3)
    assert last.best is not None
    assert last.best.parameters["data.max_tokens"] == 64
    eventually(lambda: processes() == 1, "the end of every worker")
